@file:JvmName("Hashes")

package clipstep.runtime

import java.io.File
import java.io.InputStream
import java.security.MessageDigest

/**
 * The SHA-256 of a file, or of a folder as a whole.
 *
 * For a folder it is the hash of a list with a line `sha256  path` for each file in it, sorted by path. Files that Finder and Explorer leave
 * are not listed.
 */
public fun treeSha256(path: File): String {
    if (path.isFile) return path.inputStream().use(::sha256)
    val files = filesIn(path).associateBy { it.relativeTo(path).invariantSeparatorsPath }
    return treeDigest(files.keys) { name -> treeSha256(files.getValue(name)) }
}

/** The size in bytes of a file, or of all files in a folder except those that Finder and Explorer leave. */
public fun treeSize(path: File): Long = if (path.isFile) path.length() else filesIn(path).sumOf { it.length() }

/** The same hash for the item of a bundle that is the file or folder [item]; [parts] are the names of its files. */
internal fun treeSha256(item: String, parts: List<String>, contents: Contents): String {
    fun digest(part: String) = contents.open(part).use(::sha256)
    if (parts.size == 1 && !parts[0].startsWith("${item.trimEnd('/')}/")) return digest(parts[0])
    val whole = parts[0].length - parts[0].removePrefix("${item.trimEnd('/')}/").length
    return treeDigest(parts.map { it.drop(whole) }) { name -> digest(parts.first { it.drop(whole) == name }) }
}

internal fun sha256(bytes: ByteArray): String = sha256(bytes.inputStream())

private fun filesIn(path: File): List<File> = path.walkTopDown().filter { it.isFile && !isClutter(it.name) }.toList()

private fun treeDigest(names: Collection<String>, digest: (String) -> String): String =
    sha256(names.sorted().joinToString("") { "${digest(it)}  $it\n" }.toByteArray())

/** The SHA-256 of all bytes that are left in a stream. */
public fun sha256(input: InputStream): String {
    val digest = MessageDigest.getInstance("SHA-256")
    val buffer = ByteArray(1 shl 16)
    generateSequence { input.read(buffer).takeIf { it >= 0 } }.forEach { digest.update(buffer, 0, it) }
    return digest.digest().joinToString("") { "%02x".format(it) }
}
