package clipstep.demo

import android.content.Context
import android.graphics.Canvas
import android.graphics.RectF
import android.util.AttributeSet
import android.view.View

private const val TEXT_SP = 14

/** The chart of a sustained run. Its text has the size that the user chose. */
class ChartView(context: Context, attributes: AttributeSet) : View(context, attributes) {
    private val chart = resources.displayMetrics.let { Chart(context, TEXT_SP * it.density * resources.configuration.fontScale, it.density) }
    private var buckets = emptyList<Bucket>()
    private var seconds = 1.0

    internal fun show(buckets: List<Bucket>, seconds: Double) {
        this.buckets = buckets
        this.seconds = seconds
        invalidate()
    }

    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) =
        setMeasuredDimension(MeasureSpec.getSize(widthMeasureSpec), chart.heightPx + paddingTop + paddingBottom)

    override fun onDraw(canvas: Canvas) {
        val area = RectF(paddingLeft.toFloat(), paddingTop.toFloat(), (width - paddingRight).toFloat(), (height - paddingBottom).toFloat())
        chart.draw(canvas, area, buckets, seconds)
    }
}
