package clipstep.runtime

import java.io.Closeable
import java.io.File
import java.io.FilterInputStream
import java.io.IOException
import java.io.InputStream
import java.io.OutputStream
import java.nio.file.Files
import java.text.Normalizer
import java.util.zip.ZipFile

private const val MOST_ENTRIES = 10_000
private const val LARGEST_PACK_BYTES = 4L shl 30
private const val LARGEST_RATIO = 200

/** If the files that are unpacked have more bytes than this in total, they may have at most [LARGEST_RATIO] times the bytes of the pack itself. */
internal var smallBytes = 64L shl 20

/** The files of a bundle by their names in it, with `/` between folders. None is trusted. */
internal interface Contents : Closeable {
    /** The size of each file in bytes. */
    val sizes: Map<String, Long>

    /** The entries that are not regular files inside the bundle, with the reason. */
    val unusable: Map<String, String>

    fun open(name: String): InputStream

    /** Returns a folder that holds these files, unpacked if need be. */
    fun place(names: List<String>): File

    /** Writes these files into a folder; see [Bundle.unpack]. */
    fun copy(names: List<String>, folder: File, progress: Progress) {
        val total = names.sumOf { sizes.getValue(it) }
        var done = 0L
        progress.at(0, total)
        for (name in names) {
            val file = File(folder, name).apply { parentFile?.mkdirs() }
            open(name).use { input -> file.outputStream().use { output -> pour(input, output) { progress.at(done + it, total) } } }
            done += sizes.getValue(name)
        }
    }
}

private fun pour(input: InputStream, output: OutputStream, copied: (Long) -> Unit) {
    val buffer = ByteArray(1 shl 16)
    var bytes = 0L
    generateSequence { input.read(buffer).takeIf { it >= 0 } }.forEach { count ->
        output.write(buffer, 0, count)
        bytes += count
        copied(bytes)
    }
}

/** Opens the files of the bundle at [path], a folder or a pack. */
internal fun contents(path: File): Contents = if (path.isFile) PackContents(path) else FolderContents(path)

/** Whether a file is one of those that Finder and Explorer leave in folders, and so belongs to no bundle or artifact. */
internal fun isClutter(name: String): Boolean =
    name.substringAfterLast('/').let { it in listOf(".DS_Store", "Thumbs.db", "desktop.ini") || it.startsWith("._") }

private class FolderContents(private val path: File) : Contents {
    override val sizes = mutableMapOf<String, Long>()
    override val unusable = mutableMapOf<String, String>()

    init {
        val root = path.canonicalFile
        for (file in path.walkTopDown().onEnter { it == path || !Files.isSymbolicLink(it.toPath()) }) if (file != path) add(file, root)
        for (file in linkedFolders()) add(file, root)
    }

    /** The links to folders, which [File.walkTopDown] leaves out where it does not enter them. */
    private fun linkedFolders() = path.walkTopDown().onEnter { it == path || !Files.isSymbolicLink(it.toPath()) }.flatMap { folder ->
        folder.listFiles { file -> file.isDirectory && Files.isSymbolicLink(file.toPath()) }.orEmpty().asSequence()
    }

    private fun add(file: File, root: File) {
        val name = file.relativeTo(path).invariantSeparatorsPath
        when {
            !file.exists() -> Unit // A broken link counts as a missing file.
            !file.canonicalFile.startsWith(root) -> unusable[name] = "lies outside the bundle"
            file.isFile -> sizes[name] = file.length()
            Files.isSymbolicLink(file.toPath()) -> unusable[name] = "is a link to a folder"
            !file.isDirectory -> unusable[name] = "is not a regular file"
        }
    }

    override fun open(name: String): InputStream = File(path, name).inputStream()

    override fun place(names: List<String>): File = path

    override fun close() = Unit
}

/** A bundle as one zip file: as `clipstep pack` writes it, or a folder that was zipped by hand. */
private class PackContents(private val path: File) : Contents {
    private val zip = try {
        ZipFile(path)
    } catch (error: IOException) {
        throw BundleException("$path: is not a bundle", got = "a file that is no zip file", expected = "a folder, or NAME.clipstep.zip", cause = error)
    } catch (error: IllegalArgumentException) { // A name that is no UTF-8.
        throw BundleException("$path: is not a bundle", got = error.reason(), expected = "a folder, or NAME.clipstep.zip", cause = error)
    }
    private val entries = try {
        withoutTopFolder(checked())
    } catch (error: BundleException) {
        zip.close()
        throw error
    }
    private var temporary: File? = null
    override val sizes = entries.mapValues { zip.getEntry(it.value).size }
    override val unusable = emptyMap<String, String>()

    private fun checked(): List<String> {
        val all = zip.entries().asSequence().map { it.name }.take(MOST_ENTRIES + 1).toList()
        if (all.size > MOST_ENTRIES) throw BundleException("$path: holds too many files", got = all.size, expected = "at most $MOST_ENTRIES")
        all.firstOrNull { isUnsafe(it.trimEnd('/')) }?.let { throw BundleException("$path: holds a name that no file of a bundle may have", got = it, fix = "do not use it") }
        all.groupBy { plain(it.trimEnd('/')) }.values.firstOrNull { it.size > 1 }?.let { throw BundleException("$path: holds two files of one name", got = it[0]) }
        val files = all.filter { !it.endsWith("/") }
        val plain = files.map(::plain).toSet()
        files.firstOrNull { name -> generateSequence(plain(name)) { above(it) }.drop(1).any { it in plain } }
            ?.let { throw BundleException("$path: holds a file inside a file", got = it) }
        return files
    }

    override fun open(name: String): InputStream = Bounded(zip.getInputStream(zip.getEntry(entries.getValue(name))), sizes.getValue(name))

    override fun place(names: List<String>): File {
        checkSizes(names)
        val folder = temporary ?: Files.createTempDirectory("clipstep-").toFile().also { temporary = it }
        super.copy(names.filterNot { File(folder, it).exists() }, folder) { _, _ -> }
        return folder
    }

    override fun copy(names: List<String>, folder: File, progress: Progress) {
        checkSizes(names)
        super.copy(names, folder, progress)
    }

    private fun checkSizes(names: List<String>) {
        val total = names.sumOf { sizes.getValue(it) }
        val most = minOf(maxOf(smallBytes, LARGEST_RATIO * path.length()), LARGEST_PACK_BYTES)
        if (total > most) throw BundleException("$path: unpacks to more than a bundle of its size holds", got = "$total bytes", expected = "at most $most")
    }

    override fun close() {
        zip.close()
        temporary?.deleteRecursively()
    }
}

/** A stream that fails if an entry is larger than the zip file's directory says. */
private class Bounded(input: InputStream, private var left: Long) : FilterInputStream(input) {
    override fun read(): Int = super.read().also { if (it >= 0) count(1) }

    override fun read(bytes: ByteArray, offset: Int, length: Int): Int = super.read(bytes, offset, length).also { if (it > 0) count(it) }

    private fun count(bytes: Int) {
        left -= bytes
        if (left < 0) throw IOException("it is larger than the zip file says")
    }
}

/** A name as a case-insensitive file system compares it. */
private fun plain(name: String): String = Normalizer.normalize(name, Normalizer.Form.NFC).lowercase()

private fun above(name: String): String? = name.substringBeforeLast('/', "").ifEmpty { null }

private fun isUnsafe(name: String): Boolean =
    name.split("/").any { it in listOf("", ".", "..") } || name.any { it == '\\' || it == ':' || it < ' ' }

/** The names of the zip entries by their names in the bundle. If a folder was zipped by hand, its name is before all of them, and is left out. */
private fun withoutTopFolder(files: List<String>): Map<String, String> {
    val tops = files.filter { it.count('/'::equals) == 1 && it.endsWith("/$MANIFEST") }.map { it.substringBefore('/') + "/" }
    val top = if (MANIFEST in files || tops.size != 1) "" else tops[0]
    return files.filter { it.startsWith(top) }.associateBy { it.removePrefix(top) }
}
