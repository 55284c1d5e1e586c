package clipstep.demo

import clipstep.runtime.StepModel
import java.util.ArrayDeque
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config

/** A camera of 30 frames a second with room for six, on a clock that only the script moves. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], application = TestApplication::class)
class RecogniserTest {
    private val frameNs = 33_333_333L
    private val convertNs = 2_000_000L
    private val room = 6

    private class Seen(val atMs: Double, val reading: Reading)

    private fun play(stepMs: Int, frames: Int): List<Seen> {
        var now = 0L
        var begun = false
        val clock = { // A step lies between two looks at the clock.
            if (begun) now += stepMs * 1_000_000L
            begun = true
            now
        }
        val seen = mutableListOf<Seen>()
        StepModel.load(Prepared.bundle).use { model ->
            Recogniser(model, clock).use { recogniser ->
                val waiting = ArrayDeque<Int>()
                var next = 0
                while (next < frames || waiting.isNotEmpty()) {
                    if (waiting.isEmpty()) now = maxOf(now, next * frameNs)
                    while (next < frames && next * frameNs <= now) {
                        if (waiting.size < room) waiting += next
                        next++
                    }
                    val frame = waiting.poll() ?: continue
                    now += convertNs
                    begun = false
                    val reading = recogniser.accept(Prepared.frames[frame % Prepared.frames.size], 0, 1 + frame * frameNs, live = true)
                    if (reading != null) seen += Seen(now / 1e6, reading)
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
        assertTrue(seen.all { it.reading.missed == 0L })
        assertEquals(30.0, seen[0].reading.stepMs, 1e-6)
        assertEquals(16 / 29.97 / 0.030, seen[0].reading.realTimeFactor, 1e-3)
    }

    @Test
    fun `a step of five frames still finds them waiting`() = assertEquals(0L, play(stepMs = 160, frames = 320).last().reading.missed)

    @Test
    fun `a step longer than its subclip misses frames, and says how many`() {
        val missed = play(stepMs = 600, frames = 320).last().reading.missed
        assertTrue("$missed", missed > 20)
    }
}
