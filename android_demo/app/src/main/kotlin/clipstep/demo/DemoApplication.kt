package clipstep.demo

import android.app.Application
import android.net.Uri
import android.os.Handler
import android.os.SystemClock
import java.util.concurrent.atomic.AtomicBoolean

/** Creates the frame sources, the measurer and the thermometer; tests replace them. */
open class DemoApplication : Application() {
    private val isBegun = AtomicBoolean()

    /** What the app remembers; see [Notes.begin]. */
    internal val notes: Notes get() = Notes(this).also { if (!isBegun.getAndSet(true)) it.begin() }

    /** Returns camera number [turn], modulo the number of cameras, which shows its pictures on [target]. */
    open fun camera(turn: Int, fps: Double, size: Int, target: PreviewTarget): FrameSource = CameraSource(this, turn, fps, size, target)

    /** Returns a video that begins as [from] says. */
    open fun video(uri: Uri, from: Playback): Player = VideoSource(this, uri, from)

    open fun measurer(main: Handler): Measurer = ProcessMeasurer(this, main)

    open fun thermal(): Thermal = PhoneThermal(this)

    /** The time in milliseconds since the phone's start. */
    open fun clockMs(): Long = SystemClock.elapsedRealtime()

    /** The sustained run under way, or the last one. */
    internal var longRun: LongRun? = null
}
