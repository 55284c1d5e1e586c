package clipstep.demo

import android.content.Context
import android.content.res.AssetManager
import android.net.Uri
import android.system.ErrnoException
import android.system.OsConstants
import clipstep.runtime.Bundle
import clipstep.runtime.ClipstepException
import clipstep.runtime.sha256
import clipstep.runtime.treeSha256
import clipstep.runtime.treeSize
import java.io.File
import java.io.IOException
import java.io.InputStream

internal const val SUFFIX = ".clipstep"
internal const val PART = ".part"
private const val ZIP = ".zip"
private const val OLD = ".old"
private const val MANIFEST = "manifest.json"

/** A bundle on this phone: its file, size in bytes, when it was kept, in milliseconds since 1970, and how many classes it has, or what is wrong with it. */
internal class StoredBundle(val file: File, val bytes: Long, val keptMs: Long, val classes: Int?, val problem: String?)

/**
 * The bundles on this phone: those that came with the app and those that the user opened. A bundle is written beside the one of its name, and
 * takes its place only once it is whole and proven. All instances in this process take turns, so that none sees another's work half done.
 */
class BundleStore(private val context: Context) {
    private val folder = File(context.filesDir, "bundles").apply { mkdirs() }
    private val unpacked = context.getSharedPreferences("unpacked", Context.MODE_PRIVATE) // By name, the hash of what was unpacked.

    /** The bundles by name, without those that a killed app left incomplete. */
    fun bundles(): List<File> = folder.listFiles { file -> file.name.endsWith(SUFFIX) }.orEmpty().sortedBy { it.name }

    /** Returns the bundle of that name, with or without its ending, or throws a [ClipstepException] that lists those that there are. */
    fun find(name: String): File = bundles().firstOrNull { it.name.removeSuffix(SUFFIX) == name.removeSuffix(SUFFIX) }
        ?: throw ClipstepException("no such bundle", got = name, expected = bundles().joinToString { it.name }.ifEmpty { "none is here" }, fix = "open it in the app first")

    /** Opens every bundle, and says what a list of them shows. */
    internal fun list(): List<StoredBundle> = synchronized(TURN) {
        bundles().map { file ->
            val opened = runCatching { Bundle.open(file).manifest.labels.size }
            StoredBundle(file, treeSize(file), file.lastModified(), opened.getOrNull(), opened.exceptionOrNull()?.let { inWords(it.message.orEmpty()) })
        }
    }

    /** Deletes a bundle. */
    fun delete(bundle: File) = synchronized(TURN) {
        bundle.renameTo(File(folder, bundle.name + PART)) // Whole or not at all: what is left of it is cleared away at the next start.
        File(folder, bundle.name + PART).deleteRecursively()
        Unit
    }

    /**
     * Unpacks the bundles in the app's assets that are not here yet or are other ones than those that an earlier build of the app held. A bundle that
     * the user deleted, or replaced by another of its name, stays as it is.
     */
    fun unpack() = synchronized(TURN) {
        clean()
        val shipped = context.assets.list("").orEmpty().map { it.substringBefore('/') }.distinct() // Some implementations list files, others folders.
        for (asset in shipped.filter { it.removeSuffix(ZIP).endsWith(SUFFIX) }) unpackIfNew(asset, asset.removeSuffix(ZIP))
    }

    private fun unpackIfNew(asset: String, name: String) {
        val target = File(folder, name)
        val shipped = context.assets.open(if (asset == name) "$asset/$MANIFEST" else asset).use { sha256(it) }
        val before = unpacked.getString(name, null)
        if (shipped == before?.substringBefore(' ')) return
        if (before != null && (!target.exists() || manifestSha256(target) != before.substringAfter(' '))) return
        if (asset == name) keep(name, {}) { part -> copyAsset(context.assets, asset, part) } else unpack(name, {}) { context.assets.open(asset) }
        unpacked.edit().putString(name, "$shipped ${manifestSha256(target)}").apply()
    }

    /** Puts right what a killed app left: half a bundle is deleted, and one that was to be replaced is back in its place. */
    private fun clean() {
        for (old in folder.listFiles { file -> file.name.endsWith(OLD) }.orEmpty()) old.renameTo(File(folder, old.name.removeSuffix(OLD))) // Fails if there is one.
        folder.listFiles { file -> file.name.endsWith(PART) || file.name.endsWith(OLD) }.orEmpty().forEach { it.deleteRecursively() }
    }

    /** Copies the bundle folder [tree], which was chosen in the file picker. It is kept if it is whole and [prove], which is given the copy, throws nothing. */
    fun import(tree: Uri, prove: (File) -> Unit): File = synchronized(TURN) {
        val documents = Documents(context.contentResolver, tree)
        keep(named(documents.name()), prove) { part -> documents.copyTo(part) }
    }

    /** Copies the pack [document], which was chosen in the file picker, on the same conditions. */
    fun importPack(document: Uri, prove: (File) -> Unit): File = synchronized(TURN) {
        val resolver = context.contentResolver
        unpack(named(nameOf(resolver, document)), prove) { resolver.openInputStream(document) ?: throw IOException("it cannot be opened") }
    }

    private fun named(given: String) = given.removeSuffix(ZIP).removeSuffix(SUFFIX).replace(Regex("[^A-Za-z0-9._-]"), "_") + SUFFIX

    /** Copies the pack first, because its provider's stream can be read only once. */
    private fun unpack(name: String, prove: (File) -> Unit, open: () -> InputStream): File {
        val pack = File(folder, name + ZIP + PART)
        try {
            open().use { it.writeTo(pack) }
            return keep(name, prove) { part -> Bundle.unpack(pack, part) }
        } finally {
            pack.delete()
        }
    }

    /** Replaces paths in a message by the bundles' names, because paths mean nothing to a user. */
    fun inWords(sentence: String): String = sentence.replace("${folder.path}/", "").replace(SUFFIX + PART, SUFFIX).replace(SUFFIX + ZIP + PART, SUFFIX + ZIP)

    private fun keep(name: String, prove: (File) -> Unit, write: (File) -> Unit): File {
        val part = File(folder, name + PART)
        try {
            part.deleteRecursively()
            write(part)
            Bundle.open(part)
            prove(part)
            return File(folder, name).also { replace(it, part) }
        } finally {
            part.deleteRecursively()
        }
    }

    private fun replace(target: File, part: File) {
        val old = File(folder, target.name + OLD)
        if (target.exists() && !target.renameTo(old)) throw IOException("${target.name} could not be replaced")
        if (!part.renameTo(target)) {
            old.renameTo(target)
            throw IOException("${target.name} could not be kept")
        }
        old.deleteRecursively()
    }

    companion object {
        private val TURN = Any()

        /** Whether an error, or one of its causes, is a full disk. */
        fun isNoSpace(error: Throwable): Boolean = generateSequence(error) { it.cause }.any {
            (it as? ErrnoException)?.errno == OsConstants.ENOSPC || "ENOSPC" in it.message.orEmpty()
        }
    }
}

private fun manifestSha256(bundle: File): String? = File(bundle, MANIFEST).takeIf { it.isFile }?.let { treeSha256(it) }

private fun copyAsset(assets: AssetManager, path: String, to: File) {
    val children = assets.list(path).orEmpty()
    if (children.isEmpty()) assets.open(path).use { it.writeTo(to) } else for (child in children) copyAsset(assets, "$path/$child", File(to, child))
}

internal fun InputStream.writeTo(file: File) {
    file.parentFile?.mkdirs()
    file.outputStream().use { copyTo(it) }
}
