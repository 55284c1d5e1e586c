package clipstep.demo

import android.content.Context
import android.os.Build
import android.os.PowerManager
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

private const val BETWEEN_MS = 10_000

/** How hot the phone is, as Android says. */
interface Thermal {
    /** From 0 (none) to 6 (shutdown); null before Android 10. */
    fun status(): Int?

    /** The heat as a share of that at which Android slows the phone down severely; NaN if it does not say, null before Android 11. */
    fun headroom(): Float?
}

internal class PhoneThermal(context: Context) : Thermal {
    private val power = context.service<PowerManager>()

    override fun status(): Int? = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) power.currentThermalStatus else null

    override fun headroom(): Float? = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) power.getThermalHeadroom(0) else null
}

/** The answer of [Thermal.headroom] when a run had gone on for [atS] seconds; the [share] is null if the phone did not say. */
@Serializable
data class Headroom(@SerialName("at_s") val atS: Double, val share: Double?)

/** Asks for the headroom every ten seconds and no more often, as its documentation wants. [clockMs] is a clock in milliseconds. */
internal class Headrooms(private val thermal: Thermal, private val clockMs: () -> Long) {
    private val asked = mutableListOf<Headroom>()
    private var askedMs: Long? = null

    /** The answers so far; none before Android 11. */
    val answers: List<Headroom> get() = asked

    fun at(second: Double) {
        val now = clockMs()
        if (askedMs?.let { now - it < BETWEEN_MS } == true) return
        askedMs = now
        val share = thermal.headroom() ?: return
        asked += Headroom(second, share.toDouble().takeUnless { it.isNaN() })
    }
}
