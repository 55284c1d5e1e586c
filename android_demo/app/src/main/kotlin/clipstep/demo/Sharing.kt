package clipstep.demo

import android.app.Activity
import android.content.ClipData
import android.content.Context
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.RectF
import android.text.Layout
import android.text.StaticLayout
import android.text.TextPaint
import java.io.File
import java.text.DateFormat
import java.time.Instant
import java.util.Date

private const val WIDTH_PX = 1080
private const val MARGIN_PX = 56
private const val DP_PX = 3f

/** Asks the user which app to give a file of records, or their picture, to. That one may read it, and nothing else. */
internal fun Activity.share(file: File) {
    val uri = RecordsProvider.uri(file)
    val intent = Intent(Intent.ACTION_SEND).setType(RecordsProvider.type(file)).putExtra(Intent.EXTRA_STREAM, uri)
        .addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION)
    intent.clipData = ClipData.newRawUri(file.name, uri)
    startActivity(Intent.createChooser(intent, getString(R.string.bench_share)))
}

/** A date and the time of day, in the user's language and time zone. */
internal fun Context.date(instant: Instant): String =
    DateFormat.getDateTimeInstance(DateFormat.LONG, DateFormat.SHORT, resources.configuration.locales[0]).format(Date.from(instant))

/** Draws a sustained run for people who do not have the app: what was measured, where and when, the result, and the chart. */
internal fun picture(context: Context, record: SustainedRecord): Bitmap {
    val what = context.getString(R.string.bench_bundle, record.bundle.removeSuffix(SUFFIX))
    val configuration = context.getString(R.string.picture_way, context.way(record.configuration), record.configuration.precision)
    val whole = if (record.complete) emptyList() else listOf(context.getString(R.string.picture_part, context.duration(record.sustainedS.toDouble())))
    val date = context.date(Instant.parse(record.measuredUtc))
    val texts = listOf(
        text(context, record.phone.model, 54f, R.color.text),
        text(context, listOf(what, configuration, date).joinToString("\n"), 36f, R.color.quiet),
        text(context, (whole + context.heldSentences(record)).joinToString("\n"), 40f, R.color.text),
    )
    val legend = text(context, context.getString(R.string.chart_legend), 32f, R.color.quiet)
    val chart = Chart(context, 32f, DP_PX)
    val height = texts.sumOf { it.height + MARGIN_PX / 2 } + chart.heightPx + legend.height + 3 * MARGIN_PX
    val bitmap = Bitmap.createBitmap(WIDTH_PX, height, Bitmap.Config.ARGB_8888)
    val canvas = Canvas(bitmap).apply { drawColor(context.getColor(R.color.ground)) }
    canvas.translate(MARGIN_PX.toFloat(), MARGIN_PX.toFloat())
    for (part in texts) {
        part.draw(canvas)
        canvas.translate(0f, part.height + MARGIN_PX / 2f)
    }
    chart.draw(canvas, RectF(0f, 0f, WIDTH_PX - 2f * MARGIN_PX, chart.heightPx.toFloat()), record.buckets, record.durationS)
    canvas.translate(0f, chart.heightPx + MARGIN_PX / 2f)
    legend.draw(canvas)
    return bitmap
}

private fun text(context: Context, text: String, px: Float, color: Int): StaticLayout {
    val paint = TextPaint(TextPaint.ANTI_ALIAS_FLAG).apply { textSize = px; this.color = context.getColor(color) }
    return StaticLayout.Builder.obtain(text, 0, text.length, paint, WIDTH_PX - 2 * MARGIN_PX).setLineSpacing(px / 5, 1f)
        .setAlignment(Layout.Alignment.ALIGN_NORMAL).build()
}
