package clipstep.runtime

import java.io.File
import java.security.MessageDigest

/** The SHA-256 of a file; of a folder, that of its `sha256  path` lines in order of path. */
fun treeSha256(path: File): String {
    if (path.isFile) return sha256 { digest -> path.inputStream().use { input -> input.copyTo(digest) } }
    val files = path.walkTopDown().filter { it.isFile }.associateBy { it.relativeTo(path).invariantSeparatorsPath }.toSortedMap()
    return sha256 { write -> for ((name, file) in files) write("${treeSha256(file)}  $name\n".toByteArray()) }
}

/** Bytes of a file, or of all the files in a folder. */
fun treeSize(path: File): Long = if (path.isFile) path.length() else path.walkTopDown().filter { it.isFile }.sumOf { it.length() }

private fun java.io.InputStream.copyTo(write: (ByteArray) -> Unit) {
    val buffer = ByteArray(1 shl 16)
    while (true) {
        val count = read(buffer)
        if (count < 0) return
        write(if (count == buffer.size) buffer else buffer.copyOf(count))
    }
}

private fun sha256(fill: ((ByteArray) -> Unit) -> Unit): String {
    val digest = MessageDigest.getInstance("SHA-256")
    fill { digest.update(it) }
    return digest.digest().joinToString("") { "%02x".format(it) }
}
