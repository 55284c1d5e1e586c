package clipstep.demo

import android.annotation.SuppressLint
import android.content.Context
import android.util.AttributeSet
import android.view.MotionEvent
import android.view.View
import android.view.ViewConfiguration
import android.widget.ImageButton
import android.widget.LinearLayout
import kotlin.math.abs

private const val LOW = 0.56f
private const val LOW_AT_TWICE = 0.72f
private const val HIGH = 0.88f

/** The results below the picture on a phone: about half of the screen, more for large text, or most of it after a touch of its header's button or a swipe of its header. */
class Sheet(context: Context, attributes: AttributeSet) : LinearLayout(context, attributes) {
    /** Whether it takes most of the screen. */
    var isHigh = false
        set(value) {
            field = value
            val button = view<ImageButton>(R.id.expand)
            button.setImageResource(if (value) R.drawable.ic_expand else R.drawable.ic_collapse)
            button.contentDescription = context.getString(if (value) R.string.collapse else R.string.expand)
            requestLayout()
        }

    override fun onFinishInflate() {
        super.onFinishInflate()
        view<View>(R.id.expand).setOnClickListener { isHigh = !isHigh }
        swipes(view(R.id.header))
    }

    private val low = (LOW + (resources.configuration.fontScale - 1) * (LOW_AT_TWICE - LOW)).coerceIn(LOW, LOW_AT_TWICE)

    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) {
        val height = MeasureSpec.getSize(heightMeasureSpec) * if (isHigh) HIGH else low
        super.onMeasure(widthMeasureSpec, MeasureSpec.makeMeasureSpec(height.toInt(), MeasureSpec.EXACTLY))
    }

    @SuppressLint("ClickableViewAccessibility") // The button does the same.
    private fun swipes(header: View) {
        var from = 0f
        header.setOnTouchListener { _, event ->
            if (event.action == MotionEvent.ACTION_DOWN) from = event.rawY
            val moved = event.rawY - from
            if (event.action == MotionEvent.ACTION_UP && abs(moved) > ViewConfiguration.get(context).scaledTouchSlop) isHigh = moved < 0
            true
        }
    }
}
