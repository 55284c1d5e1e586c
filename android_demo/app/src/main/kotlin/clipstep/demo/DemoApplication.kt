package clipstep.demo

import android.app.Application
import android.net.Uri
import android.os.Handler
import java.util.concurrent.atomic.AtomicBoolean

/** Creates the frame sources and the measurer; tests replace them. */
open class DemoApplication : Application() {
    private val isBegun = AtomicBoolean()

    /** What the app remembers; see [Notes.begin]. */
    internal val notes: Notes get() = Notes(this).also { if (!isBegun.getAndSet(true)) it.begin() }

    /** Returns camera number [turn], modulo the number of cameras, which shows its pictures on [target]. */
    open fun camera(turn: Int, fps: Double, size: Int, target: PreviewTarget): FrameSource = CameraSource(this, turn, fps, size, target)

    /** Returns a video that begins as [from] says. */
    open fun video(uri: Uri, from: Playback): Player = VideoSource(this, uri, from)

    open fun measurer(main: Handler): Measurer = ProcessMeasurer(this, main)
}
