package clipstep.android

import android.graphics.ImageFormat
import android.media.Image
import android.media.ImageReader
import android.os.Handler
import android.util.Size
import android.view.Surface
import java.io.Closeable
import java.util.concurrent.CopyOnWriteArrayList
import org.junit.Assert.assertEquals
import org.junit.Assert.assertSame
import org.junit.Assert.assertThrows
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config
import org.robolectric.annotation.Implementation
import org.robolectric.annotation.Implements
import org.robolectric.shadows.ShadowImageReader

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], shadows = [ScriptedReader::class])
class ImageReaderSourceTest {
    private val sink = Sink()
    private var stopped = 0
    private var rotation = 90

    private fun source(begin: (Surface, FrameSink) -> Closeable = { _, _ -> Closeable { stopped++ } }) = ImageReaderSource(Size(4, 2), { rotation }, begin = begin)

    private fun frameThreads() = Thread.getAllStackTraces().keys.count { it.name == "frames" && it.isAlive }

    @Before
    fun begin() = ScriptedReader.reset()

    @Test
    fun `images are given with their time and the rotation of now, and closed by those who take them`() {
        source().open(sink).use {
            val first = ScriptedReader.draw(Picture(ImageFormat.YUV_420_888, taken = 5))
            await("a frame") { sink.frames.size == 1 }
            rotation = 180
            ScriptedReader.draw(Picture(ImageFormat.YUV_420_888, taken = 7))
            await("two frames") { sink.frames.size == 2 }
            assertEquals(listOf(5L to 90, 7L to 180), sink.frames.map { it.timestampNs to it.rotation })
            assertEquals(2 to 4, sink.frames[0].image.run { height to width })
            assertEquals(0, first.closed)
            sink.frames[0].close()
            assertEquals(1, first.closed)
        }
    }

    @Test
    fun `closing stops the camera, the reader and its thread, once, and no frame comes afterwards`() {
        val open = source().open(sink)
        repeat(2) { open.close() }
        assertEquals(1 to 1, stopped to ScriptedReader.closed)
        await("the thread's end") { frameThreads() == 0 }
        ScriptedReader.receive()
        assertEquals(0, sink.frames.size)
    }

    @Test
    fun `a camera that fails to begin leaves nothing open`() {
        val failure = SecurityException("no permission")
        assertSame(failure, assertThrows(SecurityException::class.java) { source { _, _ -> throw failure }.open(sink) })
        assertEquals(1, ScriptedReader.closed)
        await("the thread's end") { frameThreads() == 0 }
    }

    @Test
    fun `an image whose planes are too short is closed, and is the sink's failure`() {
        source().open(sink).use {
            val image = ScriptedReader.draw(Picture(ImageFormat.YUV_420_888, chromaBytes = 2))
            await("a failure") { sink.errors.size == 1 }
            assertEquals("plane u is too short; got 2 bytes, row stride 6, pixel stride 2; expected 3 bytes for 2 x 4", sink.errors.single().message)
            assertEquals(1 to 0, image.closed to sink.frames.size)
        }
    }
}

private class Sink : FrameSink {
    val frames = CopyOnWriteArrayList<LiveFrame>()
    val errors = CopyOnWriteArrayList<Exception>()

    override fun offer(frame: LiveFrame) {
        frames += frame
    }

    override fun end() = error("a camera has no end")

    override fun fail(error: Exception) {
        errors += error
    }
}

/** A reader of what [draw] is given. */
@Implements(ImageReader::class)
class ScriptedReader : ShadowImageReader() {
    @Implementation
    fun setOnImageAvailableListener(listener: ImageReader.OnImageAvailableListener, handler: Handler) {
        receive = { listener.onImageAvailable(null) }
        post = { handler.post(receive) }
    }

    @Implementation
    fun acquireNextImage(): Image? = if (closed == 0) next.also { next = null } else error("the reader is closed")

    @Implementation
    override fun close() {
        closed++
    }

    companion object {
        @Volatile
        var closed = 0

        @Volatile
        private var next: Image? = null
        var receive: () -> Unit = {}
        private var post: () -> Unit = {}

        fun reset() {
            closed = 0
            next = null
        }

        internal fun draw(picture: Picture): Picture = picture.also {
            next = it
            post()
        }
    }
}
