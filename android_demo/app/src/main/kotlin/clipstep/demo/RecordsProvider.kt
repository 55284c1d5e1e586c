package clipstep.demo

import android.content.ContentProvider
import android.content.ContentValues
import android.content.Context
import android.database.Cursor
import android.database.MatrixCursor
import android.net.Uri
import android.os.ParcelFileDescriptor
import android.provider.OpenableColumns
import java.io.File
import java.io.FileNotFoundException

/** The folder of records, which adb can read and which is deleted with the app. */
internal fun recordsFolder(context: Context): File = File(context.getExternalFilesDir(null) ?: context.filesDir, "records")

/** Lets the app that the user shares records with, or the picture of them, read these, and nothing else. */
class RecordsProvider : ContentProvider() {
    override fun onCreate() = true

    override fun getType(uri: Uri) = type(file(uri))

    override fun openFile(uri: Uri, mode: String): ParcelFileDescriptor {
        if (mode != "r") throw FileNotFoundException("records can be read only; got mode $mode")
        return ParcelFileDescriptor.open(file(uri), ParcelFileDescriptor.MODE_READ_ONLY)
    }

    override fun query(uri: Uri, projection: Array<out String>?, selection: String?, selectionArgs: Array<out String>?, sortOrder: String?): Cursor {
        val file = file(uri)
        val cursor = MatrixCursor(arrayOf(OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE))
        cursor.addRow(arrayOf<Any>(file.name, file.length()))
        return cursor
    }

    override fun insert(uri: Uri, values: ContentValues?) = null

    override fun update(uri: Uri, values: ContentValues?, selection: String?, selectionArgs: Array<out String>?) = 0

    override fun delete(uri: Uri, selection: String?, selectionArgs: Array<out String>?) = 0

    private fun file(uri: Uri): File {
        val folder = recordsFolder(requireNotNull(context))
        val name = uri.pathSegments.singleOrNull().orEmpty()
        return File(folder, name).takeIf { it.extension in TYPES && it.isFile && it.canonicalFile.parentFile == folder.canonicalFile }
            ?: throw FileNotFoundException("no record $name")
    }

    companion object {
        const val AUTHORITY = "clipstep.demo.records"
        private val TYPES = mapOf("jsonl" to "application/json", "png" to "image/png")

        fun type(file: File): String = TYPES.getValue(file.extension)

        fun uri(file: File): Uri = Uri.Builder().scheme("content").authority(AUTHORITY).appendPath(file.name).build()
    }
}
