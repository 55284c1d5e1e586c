package clipstep.demo

import clipstep.android.WaitingRoom
import clipstep.runtime.Bundle
import clipstep.runtime.OnnxRuntime
import clipstep.runtime.StepModel
import clipstep.runtime.YuvConverter
import java.io.File
import java.util.ArrayDeque
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config

/** A camera of 30 frames a second whose frames wait in the app's own queue, on a clock that only the script moves. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], application = TestApplication::class)
class RecogniserTest {
    private val frameNs = 33_333_333L
    private val convertNs = 2_000_000L

    private class Seen(val atMs: Double, val reading: Reading, val missed: Long)

    private fun play(stepMs: Int, frames: Int): List<Seen> {
        val room = WaitingRoom()
        var now = 0L
        var begun = false
        val clock = { // A step lies between two looks at the clock.
            if (begun) now += stepMs * 1_000_000L
            begun = true
            now
        }
        val seen = mutableListOf<Seen>()
        StepModel.load(Prepared.bundle).use { model ->
            Recogniser(model, clock = clock).use { recogniser ->
                val waiting = ArrayDeque<Int>()
                var next = 0
                while (next < frames || waiting.isNotEmpty()) {
                    if (waiting.isEmpty()) now = maxOf(now, next * frameNs)
                    while (next < frames && next * frameNs <= now) {
                        if (room.enter()) waiting += next
                        next++
                    }
                    val frame = waiting.poll() ?: continue
                    room.leave()
                    now += convertNs
                    begun = false
                    val reading = recogniser.accept(Prepared.frames[frame % Prepared.frames.size], 0, 1 + frame * frameNs, live = true)
                    if (reading != null) seen += Seen(now / 1e6, reading, room.missed)
                }
            }
        }
        return seen
    }

    @Test
    fun `a step shorter than a frame lasts gives the first prediction after the sixteenth frame, and none missed`() {
        val seen = play(stepMs = 30, frames = 320)
        assertEquals(15 * 33.333333 + 2 + 30, seen[0].atMs, 0.1)
        assertEquals(20, seen.size)
        assertTrue(seen.all { it.missed == 0L })
        assertEquals(30.0, seen[0].reading.stepMs, 1e-6)
        assertEquals(16 / 29.97 / 0.030, seen[0].reading.realTimeFactor, 1e-3)
    }

    @Test
    fun `at the end of a video a network with a delay gives the prediction that it still owes`() {
        StepModel.load(Bundle.open(File(Prepared.folder, "delayed.clipstep")), OnnxRuntime()).use { delayed ->
            val given = List(10) { Prepared.frames[it] } // The network's delay is six.
            val expected = delayed.stream(0.5f).use { stream ->
                val converter = YuvConverter()
                given.mapNotNull { stream.push(converter.convert(it, 0)) } + requireNotNull(stream.flush())
            }
            Recogniser(delayed).use { recogniser ->
                val pushed = given.mapIndexedNotNull { i, frame -> recogniser.accept(frame, 0, 1 + i * 1_000_000_000L / delayed.spec.input.fps.toLong(), live = false) }
                val last = requireNotNull(recogniser.finish())
                assertEquals(expected.map { it.top(3) }, pushed.map { it.top } + listOf(last.top))
                assertEquals("the steps", pushed.last().step + 1, last.step)
                assertNull("nothing is owed any more", recogniser.finish())
            }
        }
        StepModel.load(Prepared.bundle).use { model -> Recogniser(model).use { assertNull("without a delay", it.finish()) } }
    }

    @Test
    fun `a step of five frames still finds them waiting`() = assertEquals(0L, play(stepMs = 160, frames = 320).last().missed)

    @Test
    fun `a step longer than its subclip misses frames, and says how many`() {
        val missed = play(stepMs = 600, frames = 320).last().missed
        assertTrue("$missed", missed > 20)
    }

    @Test
    fun `a pause in a file is cut out, and frames of one time are no error`() {
        StepModel.load(Prepared.bundle).use { model ->
            fun readings(live: Boolean, timeMs: (Int) -> Long): Pair<List<Reading>, Recogniser> = Recogniser(model).run {
                (0 until 48).mapNotNull { accept(Prepared.frames[it], 0, timeMs(it) * 1_000_000, live) } to this
            }
            fun top(readings: List<Reading>) = readings.map { it.top }
            val (whole, plain) = readings(live = false) { it * 1001L / 30 }
            assertEquals(3 to 0, whole.size to plain.pauses)
            val (paused, other) = readings(live = false) { it * 1001L / 30 + if (it >= 20) 5000 else 0 }
            assertEquals(top(whole), top(paused))
            assertEquals(1 to 0, other.pauses to other.gaps)
            val (anew, live) = readings(live = true) { it * 1001L / 30 + if (it >= 20) 5000 else 0 }
            assertEquals(2, anew.size) // The four frames before the gap are lost, and so is what the states held.
            assertEquals(1 to 0, live.gaps to live.pauses)
            val (doubled, _) = readings(live = false) { it / 2 * 1001L / 30 }
            assertEquals(1, doubled.size) // 24 frames of different times.
            for (recogniser in listOf(plain, other, live)) recogniser.close()
        }
    }
}
