package clipstep.demo

import android.app.Activity
import android.graphics.Bitmap
import android.view.View
import android.widget.Button
import android.widget.ProgressBar
import android.widget.RadioButton
import android.widget.RadioGroup
import android.widget.TextView
import java.io.File

private val LENGTHS = mapOf(R.id.long_1 to 1, R.id.long_3 to 3, R.id.long_10 to 10)

/** The parts of the benchmark's screen that show lengths to choose and results. */
internal class BenchViews(private val activity: Activity) {
    private val lengths = activity.view<RadioGroup>(R.id.lengths)
    private val chart = activity.view<ChartView>(R.id.chart)

    init {
        for ((id, minutes) in LENGTHS) lengths.view<RadioButton>(id).text = activity.getString(R.string.bench_long, activity.duration(60.0 * minutes))
    }

    /** The minutes that the user chose; null for the short test alone. */
    val minutes: Int? get() = LENGTHS[lengths.checkedRadioButtonId]

    fun enable(free: Boolean) {
        for (index in 0 until lengths.childCount) lengths.getChildAt(index).isEnabled = free
        activity.view<Button>(R.id.start).show(free)
        activity.view<Button>(R.id.cancel).show(!free)
    }

    fun showQuick(records: List<Record>) {
        activity.view<TextView>(R.id.fastest).say(activity.fastestSentence(records))
        activity.view<TextView>(R.id.results).text = records.joinToString("\n\n") { activity.row(it) }
    }

    /** Shows a sustained run that was written before, with its date; null for none. */
    fun showKept(kept: Kept?) {
        showLong(null)
        if (kept == null) return
        showQuick(kept.quick)
        showSustained(kept.record, kept.record.buckets, kept.record.durationS)
        val part = if (kept.record.complete) null else activity.getString(R.string.picture_part, activity.duration(kept.record.sustainedS.toDouble()))
        activity.view<TextView>(R.id.kept).say(listOfNotNull(activity.getString(R.string.kept, activity.date(kept.measured)), part).joinToString(" "))
    }

    /** Shows a sustained run under way, or one that ended; null for none. */
    fun showLong(run: LongRun?) {
        val isRunning = run?.stage == Stage.RUNNING
        activity.view<TextView>(R.id.kept).say(null)
        activity.view<TextView>(R.id.live).say(run?.takeIf { isRunning }?.let { activity.progress(it) })
        activity.view<ProgressBar>(R.id.bar).run {
            show(isRunning)
            progress = run?.let { (max * (it.buckets.lastOrNull()?.endS ?: 0.0) / it.plan.seconds).toInt() } ?: 0
        }
        showSustained(run?.record, run?.buckets.orEmpty(), run?.record?.durationS ?: run?.plan?.seconds?.toDouble() ?: 0.0)
    }

    private fun showSustained(record: SustainedRecord?, buckets: List<Bucket>, seconds: Double) {
        val sentences = record?.let { activity.heldSentences(it) }
        activity.view<TextView>(R.id.held).say(sentences?.first())
        val ms = record?.percentilesMs?.let { values -> SUSTAINED_PERCENTILES.map { values.getValue(it) } }
        activity.view<TextView>(R.id.heat).say(sentences?.let { (it.drop(1) + activity.percentileSentence(requireNotNull(ms))).joinToString("\n") })
        chart.show(buckets.isNotEmpty())
        activity.view<View>(R.id.legend).show(chart.visibility == View.VISIBLE)
        if (buckets.isNotEmpty()) chart.show(buckets, seconds)
        chart.contentDescription = activity.getString(R.string.chart_description, sentences?.first().orEmpty()).trim()
    }

    /** Writes the picture of a run. */
    fun picture(record: SustainedRecord, file: File): File {
        val bitmap = picture(activity, record)
        file.outputStream().use { bitmap.compress(Bitmap.CompressFormat.PNG, 100, it) }
        return file
    }
}

private fun View.show(isShown: Boolean) {
    visibility = if (isShown) View.VISIBLE else View.GONE
}

private fun TextView.say(sentence: String?) {
    text = sentence.orEmpty()
    show(sentence != null)
}
