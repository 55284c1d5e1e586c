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

/**
 * The results below the picture on a phone: about half of the screen, more for large text, and more again where that has a video's controls above it, so that
 * the action below the results is seen; or most of the screen after a touch of its header's button or a swipe of its header.
 */
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

    /** From 0, for the usual size of text, to 1, for twice that. */
    private val enlarged = (resources.configuration.fontScale - 1).coerceIn(0f, 1f)

    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) {
        val whole = MeasureSpec.getSize(heightMeasureSpec)
        val low = whole * (LOW + enlarged * (LOW_AT_TWICE - LOW)) + enlarged * controls(widthMeasureSpec, heightMeasureSpec)
        val height = if (isHigh) whole * HIGH else minOf(low, whole * HIGH)
        super.onMeasure(widthMeasureSpec, MeasureSpec.makeMeasureSpec(height.toInt(), MeasureSpec.EXACTLY))
    }

    /** The height of a video's controls; 0 for a camera. */
    private fun controls(widthMeasureSpec: Int, heightMeasureSpec: Int): Int {
        val player = view<View>(R.id.player)
        if (player.visibility == GONE) return 0
        measureChild(player, widthMeasureSpec, heightMeasureSpec)
        return player.measuredHeight
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
