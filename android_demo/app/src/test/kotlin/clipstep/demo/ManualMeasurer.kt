package clipstep.demo

import android.os.Handler

/** A measurer whose short measurements take [quickMs] by the number of threads, and whose sustained run is what a test tells of it. */
class ManualMeasurer(private val main: Handler, private val quickMs: (Int) -> List<Double>) : Measurer {
    var sustained: Task? = null
    var told: (Slice) -> Unit = {}
    var done: () -> Unit = {}
    var failed: (String) -> Unit = {}
    var isCancelled = false

    override fun measure(task: Task, done: (Measurement) -> Unit, failed: (String) -> Unit) {
        main.post { done(Measurement("float32", 0.2, 31.0, 1e-6, quickMs(task.threads), 50_000_000, 90_000_000, 1)) }
    }

    override fun sustain(task: Task, seconds: Int, told: (Slice) -> Unit, done: () -> Unit, failed: (String) -> Unit) {
        sustained = task
        this.told = told
        this.done = done
        this.failed = failed
    }

    override fun cancel() {
        isCancelled = true
    }
}

/** A phone that is as hot as a test says. */
class ScriptedThermal(var status: Int? = 0, var headroom: Float? = 0.5f) : Thermal {
    var asked = 0

    override fun status() = status

    override fun headroom() = headroom.also { asked++ }
}

/** A clock in nanoseconds that is looked at once at first, and then before and after each step, which takes [stepMs] of its number. */
class ScriptedClock(private val stepMs: (Int) -> Double) : () -> Long {
    private var looks = 0
    private var now = 7_000_000_000L

    override fun invoke(): Long {
        if (looks > 0 && looks % 2 == 0) now += (stepMs(looks / 2 - 1) * 1e6).toLong()
        looks++
        return now
    }
}

internal fun slice(second: Int, vararg ms: Double) = Slice(second.toDouble(), second + 1.0, StepCounts().apply { ms.forEach { add(it) } }.all)
