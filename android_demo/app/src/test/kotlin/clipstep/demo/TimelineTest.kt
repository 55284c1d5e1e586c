package clipstep.demo

import clipstep.runtime.Input
import clipstep.runtime.Ranked
import clipstep.runtime.StepModel
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test

class TimelineTest {
    /** 16 frames at 29.97 a second: 1124 of them are ten minutes. */
    private val input: Input = StepModel.load(Prepared.bundle).use { it.spec.input }
    private val subclipUs = 533_867L
    private val timeline = Timeline().apply { clear("it", input, isFile = true) }

    private fun add(label: String, last: Int, step: Int) = timeline.add(Ranked(label, 0.5f + step % 2 * 0.25f), last * 1001_000L / 30, step)

    @Test
    fun `the time of a prediction is that of its first frame`() {
        add("Fight", 15, 0)
        add("Fight", 31, 1)
        assertEquals(subclipUs, timeline.subclipUs)
        val frameUs = 33_367.0
        assertEquals("the first frame is the one at or after it", listOf(0L, 16L), List(2) { Math.ceil(timeline.startUs(it) / frameUs).toLong() })
        assertEquals(listOf(0.5f, 0.75f), List(2, timeline::probability))
    }

    @Test
    fun `a camera's time counts from its first frame`() {
        timeline.clear("a camera", input, isFile = false)
        timeline.add(Ranked("Fight", 0.5f), 9_000_000_000, 0)
        timeline.add(Ranked("Fight", 0.5f), 9_000_000_000 + subclipUs, 1)
        assertEquals(listOf(0L, subclipUs), List(2, timeline::startUs))
    }

    @Test
    fun `the last ten minutes are kept`() {
        for (i in 0 until 3000) add(if (i < 2000) "Fight" else "Calm", 16 * i + 15, i)
        assertEquals(1124, timeline.size)
        assertEquals(3000L - 1124, timeline.forgotten)
        assertEquals("the oldest", (3000 - 1124) * subclipUs / 1e6, timeline.startUs(0) / 1e6, 0.05)
        assertEquals("the newest", 2999 * subclipUs / 1e6, timeline.startUs(1123) / 1e6, 0.05)
        assertEquals("Fight" to "Calm", timeline.name(2000 - 1876 - 1) to timeline.name(2000 - 1876))
        assertEquals(600.0, (timeline.startUs(1123) - timeline.startUs(0) + subclipUs) / 1e6, 1.0)
    }

    @Test
    fun `a network that predicts with every frame has no more than ten minutes either`() {
        val each = Timeline().apply { clear("it", input.copy(shape = listOf(1, 112, 112, 3)), isFile = true) }
        for (i in 0 until 40_000) each.add(Ranked("Fight", 1f), i * 33_367L, i)
        assertEquals(17_982, each.size) // 600 * 29.97
    }

    @Test
    fun `a change of class and a new video are seen`() {
        for ((i, label) in listOf("Fight", "Fight", "Calm", "Calm").withIndex()) add(label, 16 * i + 15, i)
        add("Calm", 15, 0) // A loop.
        add("Calm", 31, 1)
        assertEquals(listOf(false, false, false, false, true, false), List(6, timeline::begins))
        assertEquals(listOf(true, false, true, false, false, false), List(6, timeline::changes))
        assertEquals(listOf(0, 0, 1, 1, 1, 1), List(6, timeline::number))
    }

    @Test
    fun `shares are parts of the predictions asked for`() {
        for ((i, label) in listOf("Calm", "Calm", "Fight", "Fight", "Calm", "Fight", "Fight").withIndex()) add(label, 16 * i + 15, i)
        assertEquals(listOf(Share("Fight", 0.8), Share("Calm", 0.2)), timeline.shares(2, 7))
        assertEquals(7, timeline.lasting(30))
        assertEquals("2.13 s", 4, timeline.lasting(2))
        assertEquals(1, timeline.lasting(0))
    }

    @Test
    fun `what another source gives begins a new one`() {
        add("Fight", 15, 0)
        timeline.clear("another", input, isFile = true)
        assertEquals(0, timeline.size)
        add("Calm", 15, 0)
        assertEquals("Calm", timeline.name(0))
        assertFalse(timeline.begins(0))
        assertTrue(timeline.changes(0))
    }

    @Test
    fun `times are minutes and seconds, and hours where there are some`() {
        val seconds = listOf(0L, 9, 10, 59, 60, 61, 599, 600, 3599, 3600, 3661, 36_610, 360_000)
        val texts = listOf("0:00", "0:09", "0:10", "0:59", "1:00", "1:01", "9:59", "10:00", "59:59", "1:00:00", "1:01:01", "10:10:10", "100:00:00")
        assertEquals(texts, seconds.map { clock(it * SECOND_US + 999_999) })
        assertEquals("١:٠١", clock(61 * SECOND_US, '٠'))
    }
}
