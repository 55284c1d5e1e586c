package clipstep.android

import android.content.Context
import android.system.ErrnoException
import android.system.OsConstants
import clipstep.runtime.Bundle
import clipstep.runtime.ClipstepException
import clipstep.runtime.Engine
import clipstep.runtime.MANIFEST
import clipstep.runtime.Progress
import clipstep.runtime.sha256
import clipstep.runtime.treeSha256
import clipstep.runtime.treeSize
import java.io.File
import java.io.IOException
import java.io.InputStream

private const val SUFFIX = ".clipstep"
private const val ZIP = ".zip"
private const val PART = ".part"
private const val OLD = ".old"

/** A bundle in a [BundleFolder]: its size in bytes, when it was kept, in milliseconds since 1970, and how many classes it has, or what is wrong with it. */
public class StoredBundle internal constructor(
    public val file: File, public val bytes: Long, public val keptMs: Long, public val classes: Int?, public val problem: ClipstepException?,
)

/**
 * The bundles of an app, `NAME.clipstep` in a folder of its private files: those that come with the APK, as assets, and those that it gets elsewhere. A
 * bundle is written beside the one of its name, and takes its place only once it is whole and proven; an app that is killed meanwhile has the one or the other.
 *
 * Functions take long, and belong on a worker thread. All instances in a process take turns, so that none sees another's work half done.
 *
 * @param name of the folder in the app's files, for these bundles alone.
 */
public class BundleFolder @JvmOverloads constructor(private val context: Context, name: String = "clipstep") {
    /** The folder. */
    public val folder: File = File(context.filesDir, name).apply { mkdirs() }
    private val unpacked = Unpacked(context.getSharedPreferences("clipstep.$name", Context.MODE_PRIVATE))

    /** The bundles by name, without those that a killed app left incomplete. */
    public fun bundles(): List<File> = folder.listFiles { file -> file.name.endsWith(SUFFIX) }.orEmpty().sortedBy { it.name }

    /** Returns the bundle of that name, with or without `.clipstep`, or throws a [ClipstepException] that lists those that there are. */
    public fun find(name: String): File = bundles().firstOrNull { it.name.removeSuffix(SUFFIX) == name.removeSuffix(SUFFIX) }
        ?: throw ClipstepException("no such bundle", got = name, expected = bundles().joinToString { it.name }.ifEmpty { "none is here" }, fix = "open it in the app first")

    /** Opens every bundle, and returns what a list of them shows. */
    public fun list(): List<StoredBundle> = synchronized(TURN) { bundles().map(::stored) }

    private fun stored(file: File): StoredBundle {
        val (classes, problem) = try {
            Bundle.open(file).manifest.labels.size to null
        } catch (error: ClipstepException) {
            null to error
        }
        return StoredBundle(file, treeSize(file), file.lastModified(), classes, problem)
    }

    /** Deletes a bundle. */
    public fun delete(bundle: File): Unit = synchronized(TURN) {
        val part = File(folder, bundle.name + PART)
        part.deleteRecursively() // A killed app may have left one, and a folder with files in it is not replaced.
        bundle.renameTo(part) // Whole or not at all: what is left of it is cleared away at the next start.
        part.deleteRecursively()
    }

    /**
     * Returns the bundle that the APK has as `assets/NAME.clipstep`, a folder, or as the pack `assets/NAME.clipstep.zip`. It is unpacked if it is not here yet, or
     * if it is another one than an earlier build of the app held; one of its name that was kept by [keep] or [keepPack] stays.
     *
     * @param name with `.clipstep`.
     * @param prove is given what was unpacked before it takes its place. If it throws, the one before stays. The files' hashes are checked without it.
     * @throws ClipstepException the APK has no such asset, or it is damaged.
     * @throws IOException there is no room, or the disk fails.
     */
    @JvmOverloads
    public fun unpack(name: String, prove: (File) -> Unit = {}): File = synchronized(TURN) {
        clean()
        val asset = shipped().firstOrNull { it.removeSuffix(ZIP) == name }
            ?: throw ClipstepException("the app has no such bundle", got = name, expected = shipped().joinToString().ifEmpty { "none is in its assets" })
        unpackIfNew(asset, prove, again = true)
        File(folder, name)
    }

    /** Unpacks all bundles in the APK's assets as [unpack] does, but those that were deleted since stay so. */
    @JvmOverloads
    public fun unpackAll(prove: (File) -> Unit = {}): Unit = synchronized(TURN) {
        clean()
        for (asset in shipped()) unpackIfNew(asset, prove, again = false)
    }

    private fun shipped(): List<String> = context.assets.list("").orEmpty()
        .map { it.substringBefore('/') }.distinct() // Some implementations list files, others folders.
        .filter { it.removeSuffix(ZIP).endsWith(SUFFIX) }

    private fun unpackIfNew(asset: String, prove: (File) -> Unit, again: Boolean) {
        val name = asset.removeSuffix(ZIP)
        val target = File(folder, name)
        val shipped = context.assets.open(if (asset == name) "$asset/$MANIFEST" else asset).use { sha256(it) }
        val held = manifestSha256(target)
        if (if (held == null) !again && unpacked.knows(name) else unpacked.isCurrent(name, shipped) || !unpacked.isOwn(name, held)) return
        val begun = { part: File -> prove(part).also { unpacked.begin(name, requireNotNull(manifestSha256(part))) } }
        if (asset == name) keep(name, begun) { part -> copyAsset(context.assets, asset, part) } else keepPack(name, 0, { _, _ -> }, begun) { context.assets.open(asset) }
        unpacked.done(name, shipped, requireNotNull(manifestSha256(target)))
    }

    /** Puts right what a killed app left: half a bundle is deleted, and one that was to be replaced is back in its place. */
    private fun clean() {
        for (old in folder.listFiles { file -> file.name.endsWith(OLD) }.orEmpty()) old.renameTo(File(folder, old.name.removeSuffix(OLD))) // Fails if there is one.
        folder.listFiles { file -> file.name.endsWith(PART) || file.name.endsWith(OLD) }.orEmpty().forEach { it.deleteRecursively() }
    }

    /**
     * Keeps the bundle that [write] writes into the folder that it is given, in place of the one of that [name], if its files are whole and [prove], which
     * is given the same folder, throws nothing; otherwise nothing of it is left.
     */
    public fun keep(name: String, prove: (File) -> Unit, write: (File) -> Unit): File = synchronized(TURN) {
        val part = File(folder, name + PART)
        try {
            part.deleteRecursively()
            write(part)
            Bundle.open(part)
            prove(part)
            File(folder, name).also { replace(it, part) }
        } finally {
            part.deleteRecursively()
        }
    }

    /**
     * Keeps what is in the pack that [open] opens, as [keep] does: the artifacts that an engine of this app runs, and the golden steps. The pack is copied first, because
     * a stream can be read only once.
     *
     * @param bytes the pack's size, or 0 if that is not known; [progress] is told it while the pack is copied, and then of the unpacking. What it throws ends that.
     */
    public fun keepPack(name: String, bytes: Long, progress: Progress, prove: (File) -> Unit, open: () -> InputStream): File = synchronized(TURN) {
        val pack = File(folder, name + ZIP + PART)
        try {
            open().use { input -> input.writeTo(pack) { progress.at(it, bytes) } }
            keep(name, prove) { part -> Bundle.unpack(pack, part, Engine.all.filter { it.isPresent }.map { it.target }, progress) }
        } finally {
            pack.delete()
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

    /** Replaces paths in a message by the bundles' names, because paths mean nothing to a user. */
    public fun inWords(sentence: String): String = sentence.replace("${folder.path}/", "").replace(SUFFIX + PART, SUFFIX).replace(SUFFIX + ZIP + PART, SUFFIX + ZIP)

    public companion object {
        private val TURN = Any()

        /** Whether an error, or one of its causes, is a full disk. */
        @JvmStatic
        public fun isNoSpace(error: Throwable): Boolean = generateSequence(error) { it.cause }.any {
            (it as? ErrnoException)?.errno == OsConstants.ENOSPC || "ENOSPC" in it.message.orEmpty()
        }
    }
}

private fun manifestSha256(bundle: File): String? = File(bundle, MANIFEST).takeIf { it.isFile }?.let { treeSha256(it) }
