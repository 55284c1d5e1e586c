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

    /** How many bytes it says that a file of that name has. */
    var sizes = mapOf<String, Long>()

    /** Called with the name of a file that is opened. */
    @Volatile
    var onOpen: (String) -> Unit = {}

    fun document(name: String): Uri = DocumentsContract.buildDocumentUri(AUTHORITY, name)

    fun tree(name: String): Uri = DocumentsContract.buildTreeDocumentUri(AUTHORITY, name)

    override fun onCreate() = true

    override fun query(uri: Uri, projection: Array<out String>?, selection: String?, selectionArgs: Array<out String>?, sortOrder: String?): Cursor {
        val id = DocumentsContract.getDocumentId(uri)
        val files = if (uri.lastPathSegment == "children") File(root, id).listFiles().orEmpty().toList() else listOf(File(root, id))
        val cursor = MatrixCursor(arrayOf(Document.COLUMN_DOCUMENT_ID, Document.COLUMN_DISPLAY_NAME, Document.COLUMN_SIZE))
        for (file in files.filter { it.exists() }) {
            cursor.addRow(arrayOf<Any>(file.relativeTo(root).path, names[file.name] ?: file.name, sizes[file.name] ?: file.length()))
        }
        return cursor
    }

    override fun openFile(uri: Uri, mode: String): ParcelFileDescriptor {
        val file = File(root, DocumentsContract.getDocumentId(uri))
        onOpen(file.name)
        return ParcelFileDescriptor.open(file, ParcelFileDescriptor.MODE_READ_ONLY)
    }

    override fun getType(uri: Uri): String? = null

    override fun insert(uri: Uri, values: ContentValues?): Uri? = null

    override fun update(uri: Uri, values: ContentValues?, selection: String?, selectionArgs: Array<out String>?) = 0

    override fun delete(uri: Uri, selection: String?, selectionArgs: Array<out String>?) = 0

    companion object {
        const val AUTHORITY = "folder"
    }
}
