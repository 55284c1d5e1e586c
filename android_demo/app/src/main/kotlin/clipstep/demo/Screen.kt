package clipstep.demo

import clipstep.runtime.Ranked

/** The state of the main screen, except for the picture. */
data class Screen(
    /** The artifact and the engine in use. */
    val what: String = "",
    /** The result of the check against the golden steps on this phone. */
    val check: String = "",
    val speed: String = "",
    val top: List<Ranked> = emptyList(),
    /** What is wrong, and what to do. */
    val message: String? = null,
    /** Whether to show the button that requests the camera permission. */
    val asksForCamera: Boolean = false,
    /** The bundle in use, `NAME.clipstep`; null if there is none. */
    val bundle: String? = null,
    val engine: String = "onnxruntime",
    val threads: Int = 1,
)
