package clipstep.demo

import android.content.Context
import android.util.AttributeSet
import android.widget.LinearLayout

private const val WIDEST_DP = 640

/** A column of content that is no wider than lines of text are read with ease, in the middle of a wide screen. */
class Column(context: Context, attributes: AttributeSet) : LinearLayout(context, attributes) {
    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) {
        val side = maxOf((MeasureSpec.getSize(widthMeasureSpec) - (WIDEST_DP * resources.displayMetrics.density).toInt()) / 2, 0)
        if (paddingLeft != side) setPadding(side, paddingTop, side, paddingBottom)
        super.onMeasure(widthMeasureSpec, heightMeasureSpec)
    }
}
