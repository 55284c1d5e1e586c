package clipstep.android

import clipstep.runtime.YuvImage
import java.io.Closeable

/**
 * A frame of a camera. Rotated clockwise by [rotation] degrees it is upright; [timestampNs] is when it was taken, in nanoseconds of a monotonic clock.
 * [image] is valid until [close] calls [release], which gives its memory back to the camera.
 */
public class LiveFrame(public val image: YuvImage, public val rotation: Int, public val timestampNs: Long, private val release: () -> Unit) : Closeable {
    override fun close(): Unit = release()
}

/** What gives frames at its own pace, and does not wait for those who take them. [ImageReaderSource] is one for camera2. */
public fun interface FrameSource {
    /** Starts to give frames to [sink]. Closing what it returns stops that; no frame is given afterwards. It may be called again after that. */
    public fun open(sink: FrameSink): Closeable
}

/** Takes the frames of a source, on any thread, but only on one at a time. */
public interface FrameSink {
    /** Takes a frame, which it closes, now or later. It returns at once. */
    public fun offer(frame: LiveFrame)

    /** There are no more frames. */
    public fun end()

    /** The source failed. */
    public fun fail(error: Exception)
}
