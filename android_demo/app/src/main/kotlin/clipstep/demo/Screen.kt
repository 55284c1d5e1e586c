package clipstep.demo

import android.net.Uri
import clipstep.runtime.Ranked

/** Why there is no picture, and what can be done about it. It stays in the picture's place until that changes. */
enum class Lack(val title: Int, val text: Int, val action: Int) {
    MODEL(R.string.no_model_title, R.string.no_model, R.string.lack_open),
    CAMERA(R.string.no_camera_title, R.string.no_camera, R.string.choose_video),
    PERMISSION(R.string.refused_title, R.string.refused, R.string.allow_camera),
}

/** A bundle on its way: [offered] by another app and waiting for the user's yes, or being copied, [permille] thousandths of it, null if that is not known. */
data class Coming(val text: String, val offered: Uri? = null, val permille: Int? = null)

/** The state of the main screen, except for the picture. */
data class Screen(
    /** What goes on, in plain words. */
    val status: String = "",
    /** The artifact and the engine in use. */
    val what: String = "",
    /** The result of the check against the golden steps on this phone. */
    val check: String = "",
    val speed: String = "",
    val top: List<Ranked> = emptyList(),
    /** What is wrong, and what to do. */
    val message: String? = null,
    /** The error behind the message, in the words of those who make bundles. */
    val reason: String? = null,
    val lack: Lack? = null,
    val coming: Coming? = null,
    /** The bundle in use, `NAME.clipstep`; null if there is none. */
    val bundle: String? = null,
    /** The engines of this app that the bundle in use has an artifact for; null if there is none. */
    val engines: List<String>? = null,
    /** How many classes it has. */
    val classes: Int? = null,
)
