package clipstep.demo

import android.os.Handler
import clipstep.runtime.YuvImage

/** A source of frames: a camera or a video. */
interface FrameSource {
    /** Whether frames that are not taken in time are lost, as a camera's are. */
    val isLive: Boolean

    /** Starts to deliver frames to [sink], on [worker]'s thread. */
    fun start(worker: Handler, sink: FrameSink)

    /** Handles a rotation of the display to [degrees] counter-clockwise. */
    fun turn(degrees: Int)

    /** Stops: no frame is delivered after this, and the camera or the file is released. It may be called from any thread. */
    fun stop()
}

/** Takes the frames of a source. */
interface FrameSink {
    /** Takes a frame. [image] is valid until this returns; rotated clockwise by [rotation] degrees it is upright. */
    fun frame(image: YuvImage, rotation: Int, timestampNs: Long)

    /** The video has ended. */
    fun ended()

    /** The source has failed; [sentence] tells the user why. */
    fun failed(sentence: String)
}
