package clipstep.demo

import clipstep.runtime.Ranked

/** All that the main screen shows but the picture. */
data class Screen(
    /** The artifact and the engine that run. */
    val what: String = "",
    /** Whether this phone computes the right numbers. */
    val check: String = "",
    val speed: String = "",
    val top: List<Ranked> = emptyList(),
    /** What is wrong, and what to do. */
    val message: String? = null,
    /** Whether the button that asks for the camera is shown. */
    val asksForCamera: Boolean = false,
    val engine: String = "onnxruntime",
    val threads: Int = 1,
)
