package clipstep.android

import android.content.res.AssetManager
import java.io.File
import java.io.InputStream

private const val CHUNK_BYTES = 1 shl 16

/** Copies an asset, a file or a folder. */
internal fun copyAsset(assets: AssetManager, path: String, to: File) {
    val children = assets.list(path).orEmpty()
    if (children.isEmpty()) assets.open(path).use { it.writeTo(to) {} } else for (child in children) copyAsset(assets, "$path/$child", File(to, child))
}

/** Writes what is left of a stream to a file; [copied] is told how many bytes there are so far. */
internal fun InputStream.writeTo(file: File, copied: (Long) -> Unit) {
    file.parentFile?.mkdirs()
    val buffer = ByteArray(CHUNK_BYTES)
    var bytes = 0L
    file.outputStream().use { output ->
        generateSequence { read(buffer).takeIf { it >= 0 } }.forEach { count ->
            output.write(buffer, 0, count)
            bytes += count
            copied(bytes)
        }
    }
}
