package clipstep.demo

import android.content.Context
import android.content.res.AssetManager
import android.net.Uri
import android.system.ErrnoException
import android.system.OsConstants
import clipstep.runtime.Bundle
import clipstep.runtime.ClipstepException
import clipstep.runtime.Engine
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

private const val LARGEST_MANIFEST = 16 shl 20

/** A bundle on this phone: its file, size in bytes, when it was kept, in milliseconds since 1970, and how many classes it has, or what is wrong with it. */
internal class StoredBundle(val file: File, val bytes: Long, val keptMs: Long, val classes: Int?, val problem: ClipstepException?)

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
            val (classes, problem) = try {
                Bundle.open(file).manifest.labels.size to null
            } catch (error: ClipstepException) {
                null to error
            }
            StoredBundle(file, treeSize(file), file.lastModified(), classes, problem)
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
        if (asset == name) keep(name, {}) { part -> copyAsset(context.assets, asset, part) } else unpack(name, 0, Transfer(folder) {}, {}) { context.assets.open(asset) }
        unpacked.edit().putString(name, "$shipped ${manifestSha256(target)}").apply()
    }

    /** Puts right what a killed app left: half a bundle is deleted, and one that was to be replaced is back in its place. */
    private fun clean() {
        for (old in folder.listFiles { file -> file.name.endsWith(OLD) }.orEmpty()) old.renameTo(File(folder, old.name.removeSuffix(OLD))) // Fails if there is one.
        folder.listFiles { file -> file.name.endsWith(PART) || file.name.endsWith(OLD) }.orEmpty().forEach { it.deleteRecursively() }
    }

    /** Returns a transfer to this phone; [told] is told how far it is. */
    fun transfer(told: (Int?) -> Unit) = Transfer(folder, told)

    /**
     * Copies the bundle folder [tree], which was chosen in the file picker: the files that its manifest names and an engine of this app needs, up to the
     * sizes that it says. It is kept if they are whole and [prove], which is given the copy, throws nothing.
     */
    fun import(tree: Uri, transfer: Transfer, prove: (File) -> Unit): File = synchronized(TURN) {
        val documents = Documents(context.contentResolver, tree)
        val name = named(documents.name())
        keep(name, prove) { part -> copy(documents, name, part, transfer) }
    }

    private fun copy(documents: Documents, name: String, part: File, transfer: Transfer) {
        val manifest = File(part, MANIFEST)
        documents.open(MANIFEST)?.use { it.writeTo(manifest, LARGEST_MANIFEST + 1L) } ?: return // Which says that it is no bundle.
        val files = Bundle.wanted(Bundle.manifest(manifest.readBytes(), name), targets(), name)
        val total = files.sumOf { it.sizeBytes }
        var done = 0L
        transfer.at(0, total)
        for (file in files) {
            // One byte more than it should have shows that it is another file.
            documents.open(file.file)?.use { input -> input.writeTo(File(part, file.file), file.sizeBytes + 1) { transfer.at(done + it, total) } }
            done += file.sizeBytes
        }
    }

    /** Copies the pack [document], which was chosen in the file picker or came from another app, on the same conditions. */
    fun importPack(document: Uri, transfer: Transfer, prove: (File) -> Unit): File = synchronized(TURN) {
        val resolver = context.contentResolver
        val given = given(resolver, document)
        unpack(named(given.name), given.bytes, transfer, prove) { resolver.openInputStream(document) ?: throw IOException("it cannot be opened") }
    }

    /** The targets that the engines in this app run. */
    private fun targets() = Engine.all.filter { it.isPresent }.map { it.target }

    private fun named(given: String) = given.removeSuffix(ZIP).removeSuffix(SUFFIX).replace(Regex("[^A-Za-z0-9._-]"), "_") + SUFFIX

    /** Copies the pack first, because its app's stream can be read only once. It has [bytes] bytes, or 0 if that is not known. */
    private fun unpack(name: String, bytes: Long, transfer: Transfer, prove: (File) -> Unit, open: () -> InputStream): File {
        val pack = File(folder, name + ZIP + PART)
        try {
            transfer.needs(2 * bytes) // For the pack and for what is in it.
            open().use { input -> input.writeTo(pack) { transfer.at(it, bytes) } }
            return keep(name, prove) { part -> Bundle.unpack(pack, part, targets(), transfer) }
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
