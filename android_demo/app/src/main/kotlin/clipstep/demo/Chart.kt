package clipstep.demo

import android.content.Context
import android.graphics.Canvas
import android.graphics.DashPathEffect
import android.graphics.Paint
import android.graphics.Path
import android.graphics.RectF
import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.log10
import kotlin.math.pow

private const val LONGEST_IN_SECONDS = 120

/** Draws step times over the time of a sustained run, with the heat behind them. [textPx] is the size of its text, [dpPx] that of a dp. */
internal class Chart(private val context: Context, private val textPx: Float, private val dpPx: Float) {
    private val text = Paint(Paint.ANTI_ALIAS_FLAG).apply { color = context.getColor(R.color.quiet); textSize = textPx }
    private val grid = line(R.color.line, 1f)
    private val median = line(R.color.accent, 2.5f)
    private val upper = line(R.color.text, 1.25f).apply { pathEffect = DashPathEffect(floatArrayOf(6 * dpPx, 4 * dpPx), 0f) }
    private val heat = Paint().apply { color = context.getColor(R.color.warning_ground) }
    private val heatText = Paint(text).apply { color = context.getColor(R.color.warning) }

    private fun line(color: Int, dp: Float) = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        this.color = context.getColor(color)
        style = Paint.Style.STROKE
        strokeWidth = dp * dpPx
        strokeJoin = Paint.Join.ROUND
    }

    /** The height that it needs at least, for its text and five lines of a grid. */
    val heightPx: Int get() = (maxOf(180 * dpPx, 9 * textPx) + 4 * textPx).toInt()

    /** Draws the [buckets] of a run that takes [seconds]. */
    fun draw(canvas: Canvas, area: RectF, buckets: List<Bucket>, seconds: Double) {
        val unit = if (seconds <= LONGEST_IN_SECONDS) 1.0 else 60.0
        val rows = ticks((buckets.maxOfOrNull { it.p95Ms } ?: 1.0) * 1.1, 4)
        val gap = 6 * dpPx
        val left = area.left + rows.maxOf { text.measureText(label(it, rows)) } + gap
        val plot = RectF(left, area.top + 2 * textPx, area.right - textPx, area.bottom - 2.8f * textPx)
        val place = Place(plot, seconds, rows.last())
        bands(canvas, place, buckets)
        canvas.drawText(context.getString(R.string.chart_ms), area.left, area.top + textPx, text)
        for (row in rows) {
            canvas.drawLine(plot.left, place.y(row), plot.right, place.y(row), grid)
            text.textAlign = Paint.Align.RIGHT
            canvas.drawText(label(row, rows), left - gap, place.y(row) + textPx / 3, text)
        }
        columns(canvas, place, seconds, unit)
        canvas.drawPath(path(place, buckets) { it.p95Ms }, upper)
        canvas.drawPath(path(place, buckets) { it.p50Ms }, median)
        text.textAlign = Paint.Align.LEFT
    }

    private fun columns(canvas: Canvas, place: Place, seconds: Double, unit: Double) {
        val columns = ticks(seconds / unit, (place.plot.width() / (4 * textPx)).toInt().coerceIn(2, 6)).filter { it * unit <= seconds * 1.001 }
        text.textAlign = Paint.Align.CENTER
        for (column in columns) canvas.drawText(label(column, columns), place.x(column * unit), place.plot.bottom + 1.3f * textPx, text)
        text.textAlign = Paint.Align.RIGHT
        canvas.drawText(context.getString(if (unit == 1.0) R.string.chart_seconds else R.string.chart_minutes), place.plot.right, place.plot.bottom + 2.5f * textPx, text)
        text.textAlign = Paint.Align.LEFT
    }

    /** A band for each time in which Android slowed the phone down, the darker the more, with its name where there is room. */
    private fun bands(canvas: Canvas, place: Place, buckets: List<Bucket>) {
        for (band in hotBands(buckets)) {
            heat.alpha = (95 + 40 * band.status).coerceAtMost(255)
            val (from, to) = place.x(band.fromS) to place.x(band.toS)
            canvas.drawRect(from, place.plot.top, to, place.plot.bottom, heat)
            val name = context.heat(band.status)
            if (heatText.measureText(name) + dpPx * 4 <= to - from) canvas.drawText(name, from + 2 * dpPx, place.plot.top - textPx / 3, heatText)
        }
    }

    private fun path(place: Place, buckets: List<Bucket>, ms: (Bucket) -> Double) = Path().apply {
        buckets.forEachIndexed { index, bucket ->
            val (x, y) = place.x((bucket.startS + bucket.endS) / 2) to place.y(ms(bucket))
            if (index == 0) moveTo(x, y) else lineTo(x, y)
        }
    }

    private fun label(value: Double, among: List<Double>): String {
        val digits = if (among.all { it == floor(it) }) 0 else ceil(-log10(among[1] - among[0])).toInt().coerceAtLeast(1)
        return "%.${digits}f".format(context.resources.configuration.locales[0], value)
    }

    private class Place(val plot: RectF, private val seconds: Double, private val highest: Double) {
        fun x(second: Double) = plot.left + (plot.width() * second / seconds).toFloat()

        fun y(ms: Double) = plot.bottom - (plot.height() * ms / highest).toFloat()
    }
}

/** A time in which Android's thermal status was the same, above 0. */
internal data class Band(val status: Int, val fromS: Double, val toS: Double)

internal fun hotBands(buckets: List<Bucket>): List<Band> {
    val bands = mutableListOf<Band>()
    for (bucket in buckets) {
        val status = bucket.thermalStatus ?: 0
        val last = bands.lastOrNull()
        if (status == 0) continue
        if (last != null && last.status == status && last.toS == bucket.startS) bands[bands.size - 1] = last.copy(toS = bucket.endS)
        else bands += Band(status, bucket.startS, bucket.endS)
    }
    return bands
}

/** Returns round values from 0 to one that is [highest] or a little more, with about so many [steps] between them. */
internal fun ticks(highest: Double, steps: Int): List<Double> {
    val power = 10.0.pow(floor(log10(highest / steps)))
    val step = listOf(1, 2, 5, 10).map { it * power }.first { it * steps >= highest * 0.999 }
    return List(ceil(highest / step - 1e-9).toInt() + 1) { it * step }
}
