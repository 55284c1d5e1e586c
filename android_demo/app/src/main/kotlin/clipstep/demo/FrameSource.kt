package clipstep.demo

import android.os.Handler
import android.util.Size
import android.view.Surface
import clipstep.runtime.YuvImage

/** A source of frames: a camera or a video. */
interface FrameSource {
    /** Whether frames that are not taken in time are lost, as a camera's are. */
    val isLive: Boolean

    /** How many frames were lost so, because steps took too long. */
    val missed: Long get() = 0

    /** Whether its pictures are on the screen without being drawn frame by frame. */
    val showsItself: Boolean get() = false

    /** Starts to deliver frames to [sink], on [worker]'s thread. */
    fun start(worker: Handler, sink: FrameSink)

    /** Handles a rotation of the display to [degrees] counter-clockwise. */
    fun turn(degrees: Int)

    /** Stops: no frame is delivered after this, and the camera or the file is released. It may be called from any thread. */
    fun stop()
}

/** A video. Unlike [start] these are called on the main thread. Times are those of the file, in microseconds. */
interface Player : FrameSource {
    /** How long the video is, or 0 if that is not known. */
    val lengthUs: Long

    /** The time of the frame that was shown last, or of that to which a seek goes. */
    val positionUs: Long

    /** A paused video keeps its next frame. */
    var isPaused: Boolean

    /** Whether the video begins again at its end. */
    var isLooping: Boolean

    /** Goes to the first frame at or after that time, also in a video that has ended. */
    fun seek(positionUs: Long)
}

/** The part of the screen where a camera shows its pictures. */
fun interface PreviewTarget {
    /**
     * Makes room for pictures of that [size], which are upright once they are rotated by [rotation] degrees, and then calls [ready] with a surface of
     * that size. If the screen goes away before, [ready] is not called. It may be called from any thread.
     */
    fun prepare(size: Size, rotation: Int, ready: (Surface) -> Unit)
}

/** Takes the frames of a source. */
interface FrameSink {
    /** Takes a frame. [image] is valid until this returns; rotated clockwise by [rotation] degrees it is upright. */
    fun frame(image: YuvImage, rotation: Int, timestampNs: Long)

    /** The next frame is the first of a new video: after a seek, or where a video begins again. A camera starts none. */
    fun anew() = Unit

    /** All frames of a video up to its end were given. It may begin again. */
    fun finished() = Unit

    /** The video has ended. */
    fun ended()

    /** There is no camera. */
    fun absent()

    /** The source has failed; [sentence] tells the user why. */
    fun failed(sentence: String)
}
