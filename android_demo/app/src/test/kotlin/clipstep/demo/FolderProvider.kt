package clipstep.demo

import android.content.ContentProvider
import android.content.ContentValues
import android.database.Cursor
import android.database.MatrixCursor
import android.net.Uri
import android.os.ParcelFileDescriptor
import android.provider.DocumentsContract
import android.provider.DocumentsContract.Document
import java.io.File

/** A folder as the file picker's providers give it; documents are called by their paths. */
class FolderProvider : ContentProvider() {
    var root = File("/")

    /** What it calls a file of that name. */
    var names = mapOf<String, String>()

    fun document(name: String): Uri = DocumentsContract.buildDocumentUri(AUTHORITY, name)

    fun tree(name: String): Uri = DocumentsContract.buildTreeDocumentUri(AUTHORITY, name)

    override fun onCreate() = true

    override fun query(uri: Uri, projection: Array<out String>?, selection: String?, selectionArgs: Array<out String>?, sortOrder: String?): Cursor {
        val id = DocumentsContract.getDocumentId(uri)
        val files = if (uri.lastPathSegment == "children") File(root, id).listFiles().orEmpty().toList() else listOf(File(root, id))
        val cursor = MatrixCursor(arrayOf(Document.COLUMN_DOCUMENT_ID, Document.COLUMN_DISPLAY_NAME, Document.COLUMN_MIME_TYPE))
        for (file in files.filter { it.exists() }) {
            cursor.addRow(arrayOf<Any>(file.relativeTo(root).path, names[file.name] ?: file.name, if (file.isDirectory) Document.MIME_TYPE_DIR else "application/octet-stream"))
        }
        return cursor
    }

    override fun openFile(uri: Uri, mode: String): ParcelFileDescriptor =
        ParcelFileDescriptor.open(File(root, DocumentsContract.getDocumentId(uri)), ParcelFileDescriptor.MODE_READ_ONLY)

    override fun getType(uri: Uri): String? = null

    override fun insert(uri: Uri, values: ContentValues?): Uri? = null

    override fun update(uri: Uri, values: ContentValues?, selection: String?, selectionArgs: Array<out String>?) = 0

    override fun delete(uri: Uri, selection: String?, selectionArgs: Array<out String>?) = 0

    companion object {
        const val AUTHORITY = "folder"
    }
}
