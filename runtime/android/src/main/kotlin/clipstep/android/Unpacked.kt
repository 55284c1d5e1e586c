package clipstep.android

import android.annotation.SuppressLint
import android.content.SharedPreferences

/** What is known of the bundles that were unpacked from an APK, by name: the hash of the asset, and that of the manifest in it. */
internal class Unpacked(private val notes: SharedPreferences) {
    fun knows(name: String): Boolean = notes.contains(name)

    /** Whether what was unpacked last is the asset with that hash. */
    fun isCurrent(name: String, shipped: String): Boolean = notes.getString(name, null)?.substringBefore(' ') == shipped

    /** Whether a bundle with that manifest was unpacked here, also if the app was killed before it could note that. */
    fun isOwn(name: String, manifest: String): Boolean = manifest == notes.getString(name, null)?.substringAfter(' ') || manifest == notes.getString(begun(name), null)

    /** A bundle with that manifest takes its place next. */
    @SuppressLint("ApplySharedPref") // It is to be on the disk before that.
    fun begin(name: String, manifest: String) {
        notes.edit().putString(begun(name), manifest).commit()
    }

    fun done(name: String, shipped: String, manifest: String) = notes.edit().putString(name, "$shipped $manifest").remove(begun(name)).apply()

    private fun begun(name: String) = "$name begun"
}
