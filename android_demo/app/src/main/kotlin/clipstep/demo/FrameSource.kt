package clipstep.demo

import android.os.Handler
import clipstep.runtime.YuvImage

/** A camera or a video. */
interface FrameSource {
    /** Whether its frames come at a rate that must be kept up with. */
    val isLive: Boolean

    /** Starts to give frames to [sink], on [worker]'s thread. */
    fun start(worker: Handler, sink: FrameSink)

    /** The display was turned to [degrees] counter-clockwise. */
    fun turn(degrees: Int)

    /** No frame comes after this, and the camera or the file is given back. From any thread. */
    fun stop()
}

/** Takes the frames of a source. */
interface FrameSink {
    /** The [image] is valid until this returns; it is upright after being turned clockwise by [rotation] degrees. */
    fun frame(image: YuvImage, rotation: Int, timestampNs: Long)

    /** The video has ended. */
    fun ended()

    /** No frame comes any more, and why, for the screen. */
    fun failed(sentence: String)
}
