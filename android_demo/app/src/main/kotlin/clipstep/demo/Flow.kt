package clipstep.demo

import android.content.Context
import android.util.AttributeSet
import android.view.View
import android.view.ViewGroup

private const val GAP_DP = 8

/** Puts its children side by side, in the direction of reading, and begins another line where there is no room. */
class Flow(context: Context, attributes: AttributeSet) : ViewGroup(context, attributes) {
    private val gap = (GAP_DP * resources.displayMetrics.density).toInt()
    private val shown get() = (0 until childCount).map { getChildAt(it) }.filter { it.visibility != View.GONE }

    private fun lines(width: Int): List<List<View>> {
        val lines = mutableListOf<MutableList<View>>()
        var used = 0
        for (child in shown) {
            if (lines.isEmpty() || used + gap + child.measuredWidth > width) {
                lines += mutableListOf(child)
                used = child.measuredWidth
            } else {
                lines.last() += child
                used += gap + child.measuredWidth
            }
        }
        return lines
    }

    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) {
        measureChildren(MeasureSpec.makeMeasureSpec(MeasureSpec.getSize(widthMeasureSpec), MeasureSpec.AT_MOST), MeasureSpec.UNSPECIFIED)
        val width = MeasureSpec.getSize(widthMeasureSpec)
        val lines = lines(width - paddingLeft - paddingRight)
        val height = lines.sumOf { line -> line.maxOf { it.measuredHeight } } + gap * maxOf(lines.size - 1, 0)
        setMeasuredDimension(width, height + paddingTop + paddingBottom)
    }

    override fun onLayout(changed: Boolean, left: Int, top: Int, right: Int, bottom: Int) {
        var y = paddingTop
        for (line in lines(width - paddingLeft - paddingRight)) {
            var x = paddingStart
            for (child in line) {
                val at = if (layoutDirection == LAYOUT_DIRECTION_RTL) width - x - child.measuredWidth else x
                child.layout(at, y, at + child.measuredWidth, y + child.measuredHeight)
                x += child.measuredWidth + gap
            }
            y += line.maxOf { it.measuredHeight } + gap
        }
    }
}
