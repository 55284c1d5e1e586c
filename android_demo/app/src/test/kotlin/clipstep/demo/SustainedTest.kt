package clipstep.demo

import android.os.PowerManager
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config

/** What a sustained run counts, without a screen; the expected numbers are worked out by hand. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], application = TestApplication::class)
class SustainedTest {
    private val ms = listOf(400.0, 400.0, 400.0, 500.0, 600.0, 300.0, 500.0)

    private fun told(seconds: Int, stopped: (Int) -> Boolean = { false }): List<Slice> {
        val found = mutableListOf<Slice>()
        var steps = 0
        slices(seconds, { stopped(steps) }, ScriptedClock { ms[it] }, { found += it }) { steps++ }
        return found
    }

    @Test
    fun `a bucket ends with the step that fills its second, and the last one with the run`() {
        val buckets = told(3).map { bucket(it, 0) }
        assertEquals(listOf(0.0 to 1.2, 1.2 to 2.3, 2.3 to 3.1), buckets.map { it.startS to it.endS })
        assertEquals(listOf(3, 2, 2), buckets.map { it.steps })
        assertEquals(listOf(400.0, 550.0, 400.0), buckets.map { it.p50Ms })
        assertEquals(listOf(400.0, 595.0, 490.0), buckets.map { it.p95Ms })
    }

    @Test
    fun `percentiles of counts are those of the times, and times have three digits`() {
        val counts = StepCounts().apply { told(3).forEach { add(it.counts) } }
        assertEquals(listOf(400.0, 540.0, 570.0, 594.0), listOf(50, 90, 95, 99).map { Math.round(counts.percentile(it) * 1e6) / 1e6 })
        val rounded = StepCounts().apply { listOf(12.3456, 12.34, 0.98765, 1234.5).forEach { add(it) } }
        assertEquals(listOf(StepCount(0.988, 1), StepCount(12.3, 2), StepCount(1230.0, 1)), rounded.all)
    }

    @Test
    fun `a run that is stopped ends with the step under way`() {
        assertEquals(listOf(3, 1), told(3) { it == 4 }.map { slice -> slice.counts.sumOf { it.steps } })
    }

    @Test
    fun `the last minute is compared with the first one, and halves in a shorter run`() {
        fun buckets(vararg ms: Double) = ms.mapIndexed { second, it -> bucket(slice(second, it), 0) }
        assertEquals(1.25, lastOverFirst(buckets(*DoubleArray(180) { if (it < 60) 10.0 else if (it < 120) 30.0 else 12.5 }))!!, 1e-9)
        assertEquals(0.5, lastOverFirst(buckets(20.0, 20.0, 99.0, 10.0, 10.0))!!, 1e-9)
        assertEquals(2.0, lastOverFirst(told(3).take(1).map { bucket(it, 0) } + bucket(Slice(1.2, 2.3, listOf(StepCount(800.0, 1))), 0))!!, 1e-9)
        assertNull(lastOverFirst(buckets(20.0)))
    }

    @Test
    fun `headroom is asked for every ten seconds and no more often, and what the phone does not say stays unsaid`() {
        val phone = ScriptedThermal()
        var nowMs = 5_000L
        val headrooms = Headrooms(phone) { nowMs }
        for (second in 0..25) {
            nowMs = 5_000L + 1000 * second
            phone.headroom = if (second == 10) Float.NaN else 0.5f
            headrooms.at(second.toDouble())
        }
        assertEquals(listOf(Headroom(0.0, 0.5), Headroom(10.0, null), Headroom(20.0, 0.5)), headrooms.answers)
        assertEquals(3, phone.asked)
        nowMs += 1 // Told again at once, as after a pause of the main thread.
        headrooms.at(60.0)
        assertEquals(3, phone.asked)
        assertEquals(emptyList<Headroom>(), Headrooms(ScriptedThermal(headroom = null)) { 0 }.apply { at(1.0) }.answers)
    }

    @Test
    fun `the status is the phone's`() {
        val application = RuntimeEnvironment.getApplication()
        shadowOf(application.service<PowerManager>()).setCurrentThermalStatus(3)
        assertEquals(3, PhoneThermal(application).status())
    }

    @Test
    fun `heat is drawn as bands of one status each`() {
        val statuses = listOf(0, 1, 1, 0, 2, 3, null)
        val bands = hotBands(statuses.mapIndexed { second, status -> bucket(slice(second, 10.0), status) })
        assertEquals(listOf(Band(1, 1.0, 3.0), Band(2, 4.0, 5.0), Band(3, 5.0, 6.0)), bands)
    }

    @Test
    fun `an axis has round values`() {
        assertEquals(listOf(0.0, 5.0, 10.0, 15.0), ticks(14.0, 4))
        assertEquals(listOf(0.0, 1.0, 2.0, 3.0), ticks(3.0, 4))
        assertEquals(listOf(0.0, 0.5, 1.0), ticks(1.0, 2))
        assertTrue(ticks(0.37, 4).last() >= 0.37)
        for (minutes in listOf(3.0, 10.0, 60.0)) assertTrue(ticks(minutes, 2).count { it <= minutes } > 1)
    }
}
