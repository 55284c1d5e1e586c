package clipstep.demo

import android.content.ContentResolver
import android.net.Uri
import android.provider.DocumentsContract
import android.provider.DocumentsContract.Document
import java.io.File
import java.io.IOException

/** A folder that the user picked. */
internal class Documents(private val resolver: ContentResolver, private val tree: Uri) {
    private class Entry(val id: String, val name: String, val isFolder: Boolean)

    private val root = DocumentsContract.getTreeDocumentId(tree)

    /** The folder's name. */
    fun name(): String = read(DocumentsContract.buildDocumentUriUsingTree(tree, root)).firstOrNull()?.name ?: throw IOException("it is not there any more")

    /** Copies the folder and all that is in it. */
    fun copyTo(folder: File) = copy(root, folder)

    private fun copy(id: String, folder: File) {
        for (entry in read(DocumentsContract.buildChildDocumentsUriUsingTree(tree, id))) {
            if (entry.name in listOf("", ".", "..") || '/' in entry.name) throw IOException("${entry.name} is not a valid file name")
            val target = File(folder, entry.name)
            if (entry.isFolder) copy(entry.id, target) else copyFile(entry, target)
        }
    }

    private fun copyFile(entry: Entry, target: File) {
        val input = resolver.openInputStream(DocumentsContract.buildDocumentUriUsingTree(tree, entry.id)) ?: throw IOException("${entry.name} cannot be opened")
        input.use { it.writeTo(target) }
    }

    private fun read(uri: Uri): List<Entry> {
        val columns = arrayOf(Document.COLUMN_DOCUMENT_ID, Document.COLUMN_DISPLAY_NAME, Document.COLUMN_MIME_TYPE)
        val cursor = resolver.query(uri, columns, null, null, null) ?: throw IOException("its app returned nothing")
        return cursor.use { rows ->
            generateSequence { if (rows.moveToNext()) Entry(rows.getString(0), rows.getString(1), rows.getString(2) == Document.MIME_TYPE_DIR) else null }.toList()
        }
    }
}

/** The name of a document, from the file picker's provider. */
internal fun nameOf(resolver: ContentResolver, document: Uri): String {
    val cursor = resolver.query(document, arrayOf(Document.COLUMN_DISPLAY_NAME), null, null, null) ?: throw IOException("its app returned nothing")
    return cursor.use { rows -> if (rows.moveToFirst()) rows.getString(rows.getColumnIndexOrThrow(Document.COLUMN_DISPLAY_NAME)) else throw IOException("it is not there any more") }
}
