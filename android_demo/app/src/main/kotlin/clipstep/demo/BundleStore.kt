package clipstep.demo

import android.content.Context
import android.net.Uri
import clipstep.android.BundleFolder
import clipstep.runtime.Bundle
import clipstep.runtime.Engine
import clipstep.runtime.MANIFEST
import java.io.File
import java.io.IOException

internal const val SUFFIX = ".clipstep"
private const val ZIP = ".zip"

private const val LARGEST_MANIFEST = 16 shl 20

internal typealias StoredBundle = clipstep.android.StoredBundle

/** The bundles on this phone: those that came with the app and those that the user opened. */
class BundleStore(private val context: Context) {
    private val bundles = BundleFolder(context, "bundles")

    /** See [BundleFolder.bundles]. */
    fun bundles(): List<File> = bundles.bundles()

    /** See [BundleFolder.find]. */
    fun find(name: String): File = bundles.find(name)

    /** See [BundleFolder.list]. */
    internal fun list(): List<StoredBundle> = bundles.list()

    /** See [BundleFolder.delete]. */
    fun delete(bundle: File) = bundles.delete(bundle)

    /** See [BundleFolder.unpackAll]. The golden steps of a bundle run when it is loaded. */
    fun unpack() = bundles.unpackAll()

    /** Returns a transfer to this phone; [told] is told how far it is. */
    fun transfer(told: (Int?) -> Unit) = Transfer(bundles.folder, told)

    /**
     * Copies the bundle folder [tree], which was chosen in the file picker: the files that its manifest names and an engine of this app needs, up to the
     * sizes that it says. It is kept if they are whole and [prove], which is given the copy, throws nothing.
     */
    fun import(tree: Uri, transfer: Transfer, prove: (File) -> Unit): File {
        val documents = Documents(context.contentResolver, tree)
        val name = named(documents.name())
        return bundles.keep(name, prove) { part -> copy(documents, name, part, transfer) }
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
    fun importPack(document: Uri, transfer: Transfer, prove: (File) -> Unit): File {
        val resolver = context.contentResolver
        val given = given(resolver, document)
        transfer.needs(2 * given.bytes) // For the pack and for what is in it.
        return bundles.keepPack(named(given.name), given.bytes, transfer, prove) { resolver.openInputStream(document) ?: throw IOException("it cannot be opened") }
    }

    /** The targets that the engines in this app run. */
    private fun targets() = Engine.all.filter { it.isPresent }.map { it.target }

    private fun named(given: String) = given.removeSuffix(ZIP).removeSuffix(SUFFIX).replace(Regex("[^A-Za-z0-9._-]"), "_") + SUFFIX

    /** See [BundleFolder.inWords]. */
    fun inWords(sentence: String): String = bundles.inWords(sentence)

    companion object {
        /** See [BundleFolder.isNoSpace]. */
        fun isNoSpace(error: Throwable): Boolean = BundleFolder.isNoSpace(error)
    }
}
