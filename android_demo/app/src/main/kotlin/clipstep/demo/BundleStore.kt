package clipstep.demo

import android.content.Context
import android.content.res.AssetManager
import android.net.Uri
import android.system.ErrnoException
import android.system.OsConstants
import clipstep.runtime.Bundle
import clipstep.runtime.ENGINES
import java.io.File
import java.io.IOException
import java.io.InputStream

private const val SUFFIX = ".clipstep"
private const val ZIP = ".zip"
private const val PART = ".part"

/** The bundles on this phone: those that came with the app and those that the user opened. They are written atomically. */
class BundleStore(private val context: Context) {
    private val folder = File(context.filesDir, "bundles").apply { mkdirs() }

    /** The bundles by name, without those that a killed app left incomplete. */
    fun bundles(): List<File> = folder.listFiles { file -> file.name.endsWith(SUFFIX) }.orEmpty().sortedBy { it.name }

    fun clean() = folder.listFiles { file -> file.name.endsWith(PART) }.orEmpty().forEach { it.deleteRecursively() }

    /** Unpacks those bundles in the app's assets that are not here yet. */
    fun unpack() {
        clean()
        val shipped = context.assets.list("").orEmpty().map { it.substringBefore('/') }.distinct() // Some implementations list files, others folders.
        for (name in shipped.filter { it.removeSuffix(ZIP).endsWith(SUFFIX) && !File(folder, it.removeSuffix(ZIP)).exists() }) {
            if (name.endsWith(ZIP)) unpack(name.removeSuffix(ZIP)) { context.assets.open(name) } else keep(name) { part -> copyAsset(context.assets, name, part) }
        }
    }

    /** Copies the bundle folder [tree], which was chosen in the file picker. It must be complete, unaltered and runnable here. */
    fun import(tree: Uri): File {
        val documents = Documents(context.contentResolver, tree)
        return keep(named(documents.name())) { part -> documents.copyTo(part) }
    }

    /** Copies the pack [document], which was chosen in the file picker. */
    fun importPack(document: Uri): File {
        val resolver = context.contentResolver
        return unpack(named(nameOf(resolver, document))) { resolver.openInputStream(document) ?: throw IOException("it cannot be opened") }
    }

    private fun named(given: String) = given.removeSuffix(ZIP).removeSuffix(SUFFIX).replace(Regex("[^A-Za-z0-9._-]"), "_") + SUFFIX

    /** Copies the pack first, because its provider's stream can be read only once. */
    private fun unpack(name: String, open: () -> InputStream): File {
        val pack = File(folder, name + ZIP + PART)
        try {
            open().use { it.writeTo(pack) }
            return keep(name) { part -> Bundle.unpack(pack, part) }
        } finally {
            pack.delete()
        }
    }

    /** Replaces paths in a message by the bundles' names, because paths mean nothing to a user. */
    fun inWords(sentence: String): String = sentence.replace("${folder.path}/", "").replace(SUFFIX + PART, SUFFIX).replace(SUFFIX + ZIP + PART, SUFFIX + ZIP)

    private fun keep(name: String, write: (File) -> Unit): File {
        val part = File(folder, name + PART)
        val target = File(folder, name)
        try {
            part.deleteRecursively()
            write(part)
            check(part)
            target.deleteRecursively()
            if (!part.renameTo(target)) throw IOException("$name could not be kept")
            return target
        } finally {
            part.deleteRecursively()
        }
    }

    private fun check(part: File) {
        val bundle = Bundle.open(part)
        val runnable = ENGINES.values.filter { it.isPresent }.map { it.target }.firstOrNull { target -> bundle.manifest.artifacts.any { it.target == target } }
        bundle.artifact(runnable ?: "onnx") // If nothing runs here, this throws an error that says why.
    }

    companion object {
        /** Whether an error, or one of its causes, is a full disk. */
        fun isNoSpace(error: Throwable): Boolean = generateSequence(error) { it.cause }.any {
            (it as? ErrnoException)?.errno == OsConstants.ENOSPC || "ENOSPC" in it.message.orEmpty()
        }
    }
}

private fun copyAsset(assets: AssetManager, path: String, to: File) {
    val children = assets.list(path).orEmpty()
    if (children.isEmpty()) assets.open(path).use { it.writeTo(to) } else for (child in children) copyAsset(assets, "$path/$child", File(to, child))
}

internal fun InputStream.writeTo(file: File) {
    file.parentFile?.mkdirs()
    file.outputStream().use { copyTo(it) }
}
