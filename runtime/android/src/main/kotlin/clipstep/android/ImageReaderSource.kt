package clipstep.android

import android.graphics.ImageFormat
import android.media.ImageReader
import android.os.Handler
import android.os.HandlerThread
import android.util.Size
import android.view.Surface
import clipstep.runtime.ClipstepException
import clipstep.runtime.YuvColor
import java.io.Closeable

private const val OTHER_FRAMES = 2 // One that a step uses, and one that arrives.

/**
 * The frames of what draws on a [Surface] in YUV_420_888, such as a camera2 session. Frames arrive on a thread of their own, so that a step holds none up.
 *
 * @param size of the frames; [chooseSize] finds a good one.
 * @param rotation what [LiveFrame.rotation] is now, such as [uprightRotation] of the camera and the display.
 * @param begin starts to draw on a surface, and returns what stops that. It tells the sink of errors that come later.
 */
public class ImageReaderSource @JvmOverloads constructor(
    private val size: Size, private val rotation: () -> Int, private val color: YuvColor = YuvColor.BT601_FULL, private val begin: (Surface, FrameSink) -> Closeable,
) : FrameSource {
    /** Makes an image reader, which is closed with what this returns. What [begin] throws, it throws, and leaves nothing open. */
    override fun open(sink: FrameSink): Closeable {
        val reading = Reading(sink)
        try {
            reading.begin()
        } catch (error: Exception) {
            reading.close()
            throw error
        }
        return reading
    }

    private inner class Reading(private val sink: FrameSink) : Closeable {
        private val reader = ImageReader.newInstance(size.width, size.height, ImageFormat.YUV_420_888, WAITING_FRAMES + OTHER_FRAMES)
        private val thread = HandlerThread("frames").apply { start() }
        private var drawing: Closeable? = null
        private var closed = false

        fun begin() {
            reader.setOnImageAvailableListener({ receive() }, Handler(thread.looper))
            drawing = begin(reader.surface, sink)
        }

        @Synchronized // An image must not be taken from a reader that is being closed.
        private fun receive() {
            val image = (if (closed) null else reader.acquireNextImage()) ?: return
            val frame = try {
                image.toYuv(color)
            } catch (error: ClipstepException) { // Its planes are shorter than its size says.
                image.close()
                return sink.fail(error)
            }
            sink.offer(LiveFrame(frame, rotation(), image.timestamp, image::close))
        }

        @Synchronized
        override fun close() {
            if (closed) return
            closed = true
            drawing?.close()
            reader.close()
            thread.quitSafely()
        }
    }
}
