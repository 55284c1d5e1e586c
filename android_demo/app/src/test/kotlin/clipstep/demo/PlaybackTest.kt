package clipstep.demo

import android.net.Uri
import android.os.Handler
import android.os.HandlerThread
import android.os.Looper
import android.os.SystemClock
import clipstep.runtime.Ranked
import clipstep.runtime.StepModel
import clipstep.runtime.YuvConverter
import clipstep.runtime.YuvImage
import java.time.Duration
import java.util.Collections
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config

/** Pause, seek and loop of a video whose frames are real, and whose predictions are compared with the model's own. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], application = TestApplication::class, shadows = [FilmExtractor::class, FilmDecoder::class])
class PlaybackTest {
    private val application = RuntimeEnvironment.getApplication()
    private val thread = HandlerThread("worker").apply { start() }
    private val model = StepModel.load(Prepared.bundle)

    /** What came, one word each: the number of a frame, `anew`, `finished` or `ended`; after a frame what was predicted. */
    private val told: MutableList<Any> = Collections.synchronizedList(mutableListOf())
    private val clock: MutableList<Long> = Collections.synchronizedList(mutableListOf())
    private val recogniser = Recogniser(model)
    private val sink = object : FrameSink {
        override fun frame(image: YuvImage, rotation: Int, timestampNs: Long) {
            told += Film.shown.last()
            clock += SystemClock.elapsedRealtime()
            assertEquals(Film.timeUs(Film.shown.last()) * 1000, timestampNs)
            recogniser.accept(image, rotation, timestampNs, live = false)?.let { told.add(it.top) }
        }

        override fun anew() {
            recogniser.reset()
            told += "anew"
        }

        override fun finished() {
            told += "finished"
        }

        override fun ended() {
            told += "ended"
        }

        override fun absent() = error("a video needs no camera")

        override fun failed(sentence: String) {
            told += sentence
        }
    }

    @Before
    fun begin() = Film.reset()

    @After
    fun end() {
        thread.quitSafely()
        thread.join()
        recogniser.close()
        model.close()
    }

    private fun play(from: Playback = Playback()) = VideoSource(application, Uri.parse("content://videos/1"), from).apply { start(Handler(thread.looper), sink) }

    private fun await(what: String, condition: (List<Any>) -> Boolean) = await("$what, not ${told.takeLast(8)}", 20) { condition(told.toList()) }

    private fun frames() = told.filterIsInstance<Int>()

    /** What came since the [n]-th new video began. */
    private fun since(n: Int): List<Any> = told.toList().let { all -> all.drop(all.withIndex().filter { it.value == "anew" }[n].index + 1) }.takeWhile { it != "anew" }

    private fun predictions(of: List<Any>) = of.filterIsInstance<List<*>>()

    /** The predictions of a new stream for the frames from [first] on. */
    private fun expected(first: Int): List<List<Ranked>> = model.stream(0.5f).use { stream ->
        val converter = YuvConverter()
        (first until Film.count).mapNotNull { stream.push(converter.convert(Prepared.frames[it], 0))?.top(3) }
    }

    /** Lets the worker do what waits for it, and the clock go on. */
    private fun settle() = repeat(20) {
        shadowOf(Looper.getMainLooper()).idleFor(Duration.ofMillis(100))
        Thread.sleep(5)
    }

    @Test
    fun `after a seek predictions are those of a new stream from that frame on`() {
        val source = play()
        await("some frames") { 20 in it }
        source.seek(Film.timeUs(41))
        assertEquals(Film.timeUs(41), source.positionUs)
        await("the end") { it.lastOrNull() == "ended" }
        assertEquals((41 until Film.count).toList(), since(1).filterIsInstance<Int>())
        assertEquals(expected(41), predictions(since(1)))
        assertTrue("no frame was decoded again", Film.opened == 1 && Film.flushed == 1)
    }

    @Test
    fun `a seek between two frames goes to the later one, and back as well as forth`() {
        val source = play()
        await("some frames") { 20 in it }
        source.seek(Film.timeUs(4) - 1000)
        await("the end") { it.lastOrNull() == "ended" }
        assertEquals((4 until Film.count).toList(), since(1).filterIsInstance<Int>())
        assertEquals("finished where it ends, not where it is left", listOf(false, true), listOf(0, 1).map { "finished" in since(it) })
        assertEquals(expected(4), predictions(since(1)))
    }

    @Test
    fun `a loop gives the same predictions again, until it is turned off`() {
        Film.count = 40
        for (endsWithFrame in listOf(false, true)) {
            told.clear()
            Film.endsWithFrame = endsWithFrame
            val source = play(Playback(isLooping = true))
            await("the third time") { list -> list.count { it == "anew" } == 3 }
            source.isLooping = false
            await("the end") { it.lastOrNull() == "ended" }
            for (n in 0..2) {
                assertEquals((0 until 40).toList(), since(n).filterIsInstance<Int>())
                assertEquals(expected(0), predictions(since(n)))
                assertEquals(1, since(n).count { it == "finished" })
            }
        }
        assertEquals("a decoder each, which is released at the end", 2 to 2, Film.opened to Film.released)
    }

    @Test
    fun `a pause loses no frame, and none is late after it`() {
        val source = play()
        await("some frames") { 20 in it }
        source.isPaused = true
        settle()
        val held = frames().last()
        settle()
        assertEquals("nothing is shown meanwhile", held, frames().last())
        assertEquals(Film.timeUs(held), source.positionUs)
        source.isPaused = false
        await("the end") { it.lastOrNull() == "ended" }
        assertEquals((0 until Film.count).toList(), frames())
        assertEquals(expected(0), predictions(told))
        assertEquals("not cut out, as pauses in the file are", 0, recogniser.pauses)
        val waits = clock.zipWithNext { a, b -> b - a }.drop(held + 1)
        assertTrue("at the file's pace: $waits", waits.take(5).sum() >= 5 * 33 - 5)
    }

    @Test
    fun `a seek in a pause shows one frame, with which the stream begins`() {
        val source = play(Playback(positionUs = Film.timeUs(30), isPaused = true))
        settle()
        assertEquals(listOf("anew", 30), told)
        source.seek(Film.timeUs(50))
        settle()
        assertEquals(listOf("anew", 30, "anew", 50), told)
        source.isPaused = false
        await("the end") { it.lastOrNull() == "ended" }
        assertEquals((50 until Film.count).toList(), since(1).filterIsInstance<Int>())
        assertEquals(expected(50), predictions(since(1)))
    }

    @Test
    fun `of many seeks the last one counts`() {
        val source = play()
        await("some frames") { 5 in it }
        for (frame in 60 downTo 40) source.seek(Film.timeUs(frame))
        await("the end") { it.lastOrNull() == "ended" }
        val last = told.lastIndexOf("anew")
        assertEquals((40 until Film.count).toList(), told.drop(last).filterIsInstance<Int>())
    }

    @Test
    fun `a seek before the decoder gave anything opens it again`() {
        Film.count = 1 // It gives that frame when the end is queued, not before.
        val file = VideoFile(application, Uri.parse("content://videos/1")).apply { open() }
        assertTrue(file.seek(0))
        assertTrue(!file.decode())
        assertTrue(!file.seek(0))
        assertTrue(file.decode() && file.hasFrame)
        assertTrue(file.seek(0))
        file.close()
        assertEquals(1 to 1, Film.opened to Film.released)
    }

    @Test
    fun `a video that has ended is opened again by a seek`() {
        val source = play()
        await("the end") { it.lastOrNull() == "ended" }
        assertEquals(1 to 1, Film.opened to Film.released)
        source.seek(Film.timeUs(60))
        await("the end again") { list -> list.count { it == "ended" } == 2 }
        assertEquals((60 until Film.count).toList(), since(1).filterIsInstance<Int>())
        source.seek(Film.timeUs(Film.count) + SECOND_US) // After its last frame.
        await("the end at once") { list -> list.count { it == "ended" } == 3 }
        assertEquals(3 to 3, Film.opened to Film.released)
    }

    @Test
    fun `the decoder is released when it is stopped in a pause, and when a frame fails after a seek`() {
        val source = play(Playback(isPaused = true))
        settle()
        assertEquals(1 to 0, Film.opened to Film.released)
        source.stop()
        settle()
        assertEquals(1 to 1, Film.opened to Film.released)
        source.seek(0)
        source.isPaused = false
        settle()
        assertEquals("nothing after that", listOf("anew", 0), told)
        Film.broken = 36
        told.clear()
        val other = play()
        await("some frames") { 5 in it }
        other.seek(Film.timeUs(36))
        await("a sentence") { it.lastOrNull() == "The video cannot be decoded: the decoder shows no pictures. Choose another one." }
        assertEquals(2 to 2, Film.opened to Film.released)
    }
}
