package clipstep.demo

import android.app.Application
import android.net.Uri
import android.os.Handler

/** Where frames come from and measuring happens: what a test replaces. */
open class DemoApplication : Application() {
    /** The camera numbered [turn], counted on past the last one. */
    open fun camera(turn: Int, fps: Double, size: Int): FrameSource = CameraSource(this, turn, fps, size)

    open fun video(uri: Uri): FrameSource = VideoSource(this, uri)

    open fun measurer(main: Handler): Measurer = ProcessMeasurer(this, main)
}
