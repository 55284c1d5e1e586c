package clipstep.android

import clipstep.runtime.ClipstepException
import clipstep.runtime.OnnxRuntime
import clipstep.runtime.Prediction
import clipstep.runtime.StepModel
import clipstep.runtime.YuvConverter
import java.io.Closeable
import java.util.concurrent.CopyOnWriteArrayList
import java.util.concurrent.atomic.AtomicInteger
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.joinAll
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import org.junit.After
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

private const val FRAME_NS = 33_366_700L // 29.97 a second.

/** The network takes subclips of four frames. */
class PredictionsTest {
    private val model = StepModel.load(Prepared.small, OnnxRuntime())
    private val source = Source()
    private val counts = MutableStateFlow(FrameCounts())

    @After
    fun close() = model.close()

    private fun predictions(): Flow<Prediction> = predictions(model, source, counts = counts)

    /** What the runtime gives for the images of noise with these numbers. */
    private fun expected(rotation: Int, vararg numbers: Int): List<Prediction> = model.stream().use { stream ->
        val converter = YuvConverter()
        numbers.toList().mapNotNull { stream.push(converter.convert(noise(it), rotation)) }
    }

    private fun assertSame(expected: List<Prediction>, got: List<Prediction>) {
        assertEquals(expected.map { it.step to it.framesSeen }, got.map { it.step to it.framesSeen })
        for ((wanted, found) in expected.zip(got)) assertArrayEquals(wanted.logits, found.logits, 0f)
    }

    /** Collects everything while [script] runs, which must end the source. */
    private fun collect(script: () -> Unit): List<Prediction> = runBlocking {
        val all = async(Dispatchers.IO) { predictions().toList() }
        source.awaitOpen()
        script()
        all.await()
    }

    private fun assertAllClosed() {
        await("the source is closed") { source.closed.get() == source.opened.get() }
        await("${source.given.count { it.get() != 1 }} frames are not closed, or twice") { source.given.all { it.get() == 1 } }
    }

    @Test
    fun `predictions are the stream's, and a second collection starts anew`() {
        repeat(2) {
            val got = collect {
                repeat(9) { source.give(it) }
                source.end()
            }
            assertSame(expected(0, 0, 1, 2, 3, 4, 5, 6, 7), got)
        }
        assertEquals(FrameCounts(), counts.value)
        assertEquals(2, source.opened.get())
        assertAllClosed()
    }

    @Test
    fun `the source is closed before the stream flushes`() {
        StepModel.load(Prepared.delayed, OnnxRuntime()).use { delayed ->
            val frames = 4
            val whole = delayed.stream().use { stream ->
                val converter = YuvConverter()
                repeat(frames) { stream.push(converter.convert(noise(it), 0)) }
                stream.flush()!!
            }
            val got = runBlocking {
                val all = async(Dispatchers.IO) { predictions(delayed, source).toList() }
                source.awaitOpen()
                repeat(frames) { source.give(it, timestampNs = it * 40_000_000L) } // 25 a second.
                source.end()
                all.await()
            }
            assertArrayEquals(whole.logits, got.last().logits, 0f)
        }
        assertAllClosed()
    }

    @Test
    fun `a collector that is cancelled closes the source and the frames that wait`() {
        runBlocking {
            val first = CompletableDeferred<Prediction>()
            val collector = launch(Dispatchers.IO) { predictions().collect { first.complete(it); CompletableDeferred<Unit>().await() } }
            source.awaitOpen()
            repeat(4) { source.give(it) }
            first.await()
            source.giveTaken(4..7)
            repeat(WAITING_FRAMES) { source.give(8 + it, wait = false) } // The producer has its next prediction in its hands, and takes none of them.
            assertEquals(WAITING_FRAMES, source.given.count { it.get() == 0 })
            collector.cancel()
            joinAll(collector)
        }
        assertAllClosed()
        source.give(0, wait = false) // A frame that comes too late.
        assertAllClosed()
    }

    @Test
    fun `who takes one prediction closes everything as well`() {
        val got = runBlocking {
            val one = async(Dispatchers.IO) { predictions().take(1).toList() }
            source.awaitOpen()
            repeat(5) { source.give(it, wait = false) }
            one.await()
        }
        assertSame(expected(0, 0, 1, 2, 3), got)
        assertAllClosed()
    }

    @Test
    fun `a slow collector misses the frames that find no room, and they are counted`() {
        val got = runBlocking {
            val gate = CompletableDeferred<Unit>()
            val first = CompletableDeferred<Unit>()
            val all = async(Dispatchers.IO) { mutableListOf<Prediction>().also { taken -> predictions().collect { taken += it; first.complete(Unit); gate.await() } } }
            source.awaitOpen()
            repeat(4) { source.give(it) }
            first.await()
            source.giveTaken(4..7)
            repeat(WAITING_FRAMES + 5) { source.give(8 + it, wait = false) }
            assertEquals(FrameCounts(missed = 5), counts.value)
            source.end()
            gate.complete(Unit)
            all.await()
        }
        assertSame(expected(0, *IntArray(8 + WAITING_FRAMES) { it }), got)
        assertAllClosed()
    }

    @Test
    fun `gaps and steps back are counted, and start anew`() {
        val got = collect {
            repeat(3) { source.give(it) }
            repeat(5) { source.give(10 + it, timestampNs = 9_000_000_000L + it * FRAME_NS) }
            repeat(4) { source.give(20 + it) }
            source.end()
        }
        assertEquals(FrameCounts(restarts = 2), counts.value)
        assertSame(expected(0, 10, 11, 12, 13) + expected(0, 20, 21, 22, 23), got)
    }

    @Test
    fun `a camera that is turned starts anew`() {
        val got = collect {
            repeat(3) { source.give(it) }
            repeat(4) { source.give(3 + it, rotation = 90) }
            source.end()
        }
        assertSame(expected(90, 3, 4, 5, 6), got)
        assertEquals(0, counts.value.restarts)
    }

    @Test
    fun `a source that fails is the collector's failure, after the predictions before it`() {
        val got = mutableListOf<Prediction>()
        val error = assertThrows(IllegalStateException::class.java) {
            runBlocking {
                val all = async(Dispatchers.IO) { runCatching { predictions().collect { got += it } } }
                source.awaitOpen()
                repeat(5) { source.give(it) }
                source.fail(IllegalStateException("another app took it"))
                all.await().getOrThrow()
            }
        }
        assertEquals("another app took it" to 1, error.message to got.size)
        assertAllClosed()
    }

    @Test
    fun `a frame that cannot be used is the collector's failure`() {
        val error = assertThrows(ClipstepException::class.java) { collect { source.give(0, rotation = 45) } }
        assertEquals("unknown rotation; got 45; expected 0, 90, 180 or 270", error.message)
        assertAllClosed()
    }

    @Test
    fun `a source that does not open is the collector's failure, and can be tried again`() {
        source.refuses = SecurityException("no permission")
        assertEquals("no permission", assertThrows(SecurityException::class.java) { runBlocking { predictions().toList() } }.message)
        source.refuses = null
        assertSame(expected(0, 0, 1, 2, 3), collect { repeat(4) { source.give(it) }; source.end() })
    }
}

/** A camera whose frames the test gives. */
private class Source : FrameSource {
    val opened = AtomicInteger()
    val closed = AtomicInteger()

    /** How often each frame was closed. */
    val given = CopyOnWriteArrayList<AtomicInteger>()

    @Volatile
    var refuses: Exception? = null

    @Volatile
    private var sink: FrameSink? = null
    private val collections = AtomicInteger()

    override fun open(sink: FrameSink): Closeable {
        refuses?.let { throw it }
        opened.incrementAndGet()
        this.sink = sink
        return Closeable { closed.incrementAndGet() }
    }

    /** Waits for the next collection. */
    fun awaitOpen() {
        val wanted = collections.incrementAndGet()
        await("the source is open") { opened.get() == wanted && sink != null }
    }

    /** Gives the image of noise with that number; unless it is said otherwise, it is used before this returns. */
    fun give(number: Int, rotation: Int = 0, timestampNs: Long = 1 + number * FRAME_NS, wait: Boolean = true) {
        val closed = AtomicInteger().also { given += it }
        sink!!.offer(LiveFrame(noise(number), rotation, timestampNs) { closed.incrementAndGet() })
        if (wait) await("frame $number is used") { closed.get() > 0 }
    }

    /** Gives a subclip, after which the producer waits for the collector. */
    fun giveTaken(numbers: IntRange) = numbers.forEach { give(it) }

    fun end() = sink!!.end()

    fun fail(error: Exception) = sink!!.fail(error)
}
