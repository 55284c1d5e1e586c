package clipstep.demo

import android.content.ContentResolver
import android.net.Uri
import android.provider.DocumentsContract
import android.provider.DocumentsContract.Document
import android.provider.OpenableColumns
import java.io.File
import java.io.IOException
import java.io.InputStream

/** A folder that the user picked. */
internal class Documents(private val resolver: ContentResolver, private val tree: Uri) {
    private class Entry(val id: String, val name: String)

    private val root = DocumentsContract.getTreeDocumentId(tree)

    /** The folder's name. */
    fun name(): String = read(DocumentsContract.buildDocumentUriUsingTree(tree, root)).firstOrNull()?.name ?: throw IOException("it is not there any more")

    /** Opens the file of that name, with `/` between folders, or returns null if there is none. */
    fun open(name: String): InputStream? {
        val id = name.split("/").fold<String, String?>(root) { folder, part -> folder?.let { children(it).firstOrNull { child -> child.name == part }?.id } } ?: return null
        return resolver.openInputStream(DocumentsContract.buildDocumentUriUsingTree(tree, id)) ?: throw IOException("$name cannot be opened")
    }

    private fun children(id: String) = read(DocumentsContract.buildChildDocumentsUriUsingTree(tree, id))

    private fun read(uri: Uri): List<Entry> {
        val cursor = resolver.query(uri, arrayOf(Document.COLUMN_DOCUMENT_ID, Document.COLUMN_DISPLAY_NAME), null, null, null) ?: throw IOException("its app returned nothing")
        return cursor.use { rows -> generateSequence { if (rows.moveToNext()) Entry(rows.getString(0), rows.getString(1)) else null }.toList() }
    }
}

/** A file that another app gives: its name, and its size in bytes, or 0 if the app does not say. */
internal class Given(val name: String, val bytes: Long)

/** What a file's app says of it. */
internal fun given(resolver: ContentResolver, file: Uri): Given {
    val cursor = resolver.query(file, arrayOf(OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE), null, null, null) ?: throw IOException("its app returned nothing")
    return cursor.use { rows ->
        if (!rows.moveToFirst()) throw IOException("it is not there any more")
        val (name, size) = listOf(OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE).map { rows.getColumnIndex(it) } // Some apps leave one out.
        Given(if (name < 0) file.lastPathSegment.orEmpty() else rows.getString(name).orEmpty(), if (size < 0) 0 else rows.getLong(size))
    }
}

/** Writes what is left of a stream to a file, but at most [most] bytes; [copied] is told how many there are so far. */
internal fun InputStream.writeTo(file: File, most: Long, copied: (Long) -> Unit = {}) {
    file.parentFile?.mkdirs()
    val buffer = ByteArray(1 shl 16)
    var bytes = 0L
    file.outputStream().use { output ->
        while (bytes < most) {
            val count = read(buffer, 0, minOf(most - bytes, buffer.size.toLong()).toInt())
            if (count < 0) return
            output.write(buffer, 0, count)
            bytes += count
            copied(bytes)
        }
    }
}
