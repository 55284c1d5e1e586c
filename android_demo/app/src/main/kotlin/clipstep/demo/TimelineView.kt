package clipstep.demo

import android.annotation.SuppressLint
import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.os.Bundle
import android.util.AttributeSet
import android.util.TypedValue
import android.view.GestureDetector
import android.view.KeyEvent
import android.view.MotionEvent
import android.view.View
import android.view.accessibility.AccessibilityNodeInfo
import android.view.accessibility.AccessibilityNodeInfo.AccessibilityAction
import android.widget.HorizontalScrollView
import android.widget.OverScroller
import java.text.DecimalFormatSymbols
import kotlin.math.roundToInt

private const val SECOND_DP = 16 // So wide is a second of video.
private const val WIDEST_DP = 32
private const val BARS_DP = 48
private const val GAP_DP = 1
private const val NAME_GAP_DP = 4
private const val TEXT_SP = 12f
private const val SUMMARY_S = 30
private const val NAMED = 2
private const val LEAST_LETTERS = 3
private const val ELLIPSIS = "…"
private val RTL = Character.DIRECTIONALITY_RIGHT_TO_LEFT..Character.DIRECTIONALITY_RIGHT_TO_LEFT_ARABIC
private val MARKS_S = intArrayOf(1, 2, 5, 10, 15, 30, 60, 120, 300)

/**
 * Draws a [Timeline]: a column for each prediction, whose colour is that of its class and whose height is its probability. Above them is a class's name where it
 * changes, below them the time. The newest is at the end of the direction of reading, and stays in sight unless the user scrolled back. Touching a column chooses
 * it. A screen reader is told of the classes in sight, by their share of that time. Drawing allocates nothing.
 */
class TimelineView(context: Context, attributes: AttributeSet) : View(context, attributes) {
    /** Called with the prediction's index when one is chosen, and whether it was touched. */
    var onChoose: (Int, Boolean) -> Unit = { _, _ -> }
    private var timeline: Timeline? = null
    private var seen = 0L // The number of the prediction after the newest one that is drawn.
    private var chosen = -1L // A number, too.
    private var back = 0f // How far the user scrolled back from the newest.
    private val density = resources.displayMetrics.density
    private val colors = resources.obtainTypedArray(R.array.timeline).run { IntArray(length()) { getColor(it, 0) }.also { recycle() } }
    private val bar = Paint()
    private val text = Paint(Paint.ANTI_ALIAS_FLAG).apply { textSize = TypedValue.applyDimension(TypedValue.COMPLEX_UNIT_SP, TEXT_SP, resources.displayMetrics) }
    private val nameColor = context.getColor(R.color.text)
    private val timeColor = context.getColor(R.color.quiet)
    private val lineColor = context.getColor(R.color.line)
    private val clock = CharArray(CLOCK_CHARS)

    /** The digit 0 of the user's language. */
    val zero = DecimalFormatSymbols.getInstance(resources.configuration.locales[0]).zeroDigit
    private val ascent = -text.fontMetrics.top
    private val descent = text.fontMetrics.bottom
    private val lineHeight = ascent + descent
    private val ellipsisWidth = text.measureText(ELLIPSIS)
    private val widestTime = text.measureText("00:00 ")
    private var column = 1f
    private var markUs = SECOND_US
    private val scroller = OverScroller(context)

    init {
        isFocusable = true
        isClickable = true
    }

    private val newest get() = timeline?.run { forgotten + size } ?: 0
    private val isRtl get() = layoutDirection == LAYOUT_DIRECTION_RTL
    private val furthest get() = maxOf((timeline?.size ?: 0) * column - width, 0f)
    private val scroll get() = furthest - back
    private val first get() = (scroll / column).toInt()
    private val last get() = minOf(((scroll + width) / column).toInt(), (timeline?.size ?: 0) - 1)

    /** Shows a timeline, after it has changed. */
    fun show(timeline: Timeline) {
        if (this.timeline !== timeline || timeline.size == 0 || timeline.forgotten + timeline.size < seen) begin(timeline)
        val added = newest - seen
        seen = newest
        if (back > 0) back = minOf(back + added * column, furthest)
        visibility = if (timeline.size == 0) GONE else VISIBLE
        invalidate()
    }

    private fun begin(timeline: Timeline) {
        this.timeline = timeline
        back = 0f
        chosen = -1
        seen = newest
        column = (SECOND_DP * density * timeline.subclipUs / SECOND_US).coerceIn(1f, WIDEST_DP * density)
        val secondsWide = 1.5f * widestTime / column * timeline.subclipUs / SECOND_US
        markUs = (MARKS_S.firstOrNull { it >= secondsWide } ?: MARKS_S.last()) * SECOND_US
    }

    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) =
        setMeasuredDimension(MeasureSpec.getSize(widthMeasureSpec), (2 * lineHeight + BARS_DP * density).roundToInt())

    override fun onDraw(canvas: Canvas) {
        val timeline = timeline ?: return
        drawColumns(canvas, timeline)
        text.textAlign = if (isRtl) Paint.Align.RIGHT else Paint.Align.LEFT
        drawNames(canvas, timeline)
        drawTimes(canvas, timeline)
    }

    /** Draws from one place to another along the direction of reading. */
    private fun drawBar(canvas: Canvas, from: Float, to: Float, top: Float, bottom: Float) =
        canvas.drawRect(if (isRtl) width - to else from, top, if (isRtl) width - from else to, bottom, bar)

    private fun at(place: Float): Float = if (isRtl) width - place else place

    private fun drawColumns(canvas: Canvas, timeline: Timeline) {
        val bottom = lineHeight + BARS_DP * density
        bar.color = lineColor
        drawBar(canvas, 0f, width.toFloat(), bottom, bottom + GAP_DP * density)
        val gap = if (column > 2 * GAP_DP * density + 1) GAP_DP * density else 0f
        for (i in first..last) {
            val from = i * column - scroll
            if (timeline.forgotten + i == chosen) {
                bar.color = lineColor
                drawBar(canvas, from, from + column, lineHeight, bottom)
            }
            if (timeline.begins(i)) {
                bar.color = timeColor
                drawBar(canvas, from - gap, from, lineHeight, bottom)
            }
            bar.color = colors[timeline.number(i) % colors.size]
            drawBar(canvas, from, from + column - gap, bottom - maxOf(timeline.probability(i) * BARS_DP, 2f) * density, bottom)
        }
    }

    /** Names each run of one class, as far as there is room, also if it began out of sight. */
    private fun drawNames(canvas: Canvas, timeline: Timeline) {
        text.color = nameColor
        var i = first
        while (i <= last) {
            var end = i + 1
            while (end < timeline.size && !timeline.changes(end)) end++
            val from = maxOf(i * column - scroll, 0f)
            val to = if (end == timeline.size) width.toFloat() else minOf(end * column - scroll, width.toFloat()) - NAME_GAP_DP * density
            drawName(canvas, timeline.name(i), from, to - from)
            i = end
        }
    }

    private fun drawName(canvas: Canvas, name: String, from: Float, room: Float) {
        val whole = text.breakText(name, true, room, null)
        if (whole == name.length) return canvas.drawText(name, at(from), ascent, text)
        val part = text.breakText(name, true, room - ellipsisWidth, null)
        if (part < LEAST_LETTERS) return
        val isAlong = isRtl == isRtl(name) // A Latin name ends on its right also where the screen is read from right to left.
        canvas.drawText(name, 0, part, at(if (isAlong) from else from + ellipsisWidth), ascent, text)
        canvas.drawText(ELLIPSIS, at(if (isAlong) from + text.measureText(name, 0, part) else from), ascent, text)
    }

    private fun isRtl(name: String): Boolean = name.isNotEmpty() && Character.getDirectionality(name[0]) in RTL

    private fun drawTimes(canvas: Canvas, timeline: Timeline) {
        text.color = timeColor
        val line = height - descent
        var free = -Float.MAX_VALUE
        for (i in maxOf(first - (widestTime / column).toInt() - 1, 0)..last) {
            val place = i * column - scroll
            val us = timeline.startUs(i)
            val isMark = i == 0 || timeline.begins(i) || us / markUs != timeline.startUs(i - 1) / markUs
            if (!isMark || place < free) continue
            free = place + widestTime
            val length = writeClock(us, clock, zero)
            if (place + text.measureText(clock, 0, length) <= width) canvas.drawText(clock, 0, length, at(place), line, text)
        }
    }

    private fun scrollBy(distance: Float) {
        back = (back - distance).coerceIn(0f, furthest)
        invalidate()
    }

    private val gestures = GestureDetector(context, object : GestureDetector.SimpleOnGestureListener() {
        override fun onDown(event: MotionEvent): Boolean {
            scroller.forceFinished(true)
            return true
        }

        override fun onScroll(from: MotionEvent?, event: MotionEvent, distanceX: Float, distanceY: Float): Boolean {
            parent?.requestDisallowInterceptTouchEvent(true)
            scrollBy(if (isRtl) -distanceX else distanceX)
            return true
        }

        override fun onFling(from: MotionEvent?, event: MotionEvent, velocityX: Float, velocityY: Float): Boolean {
            scroller.fling(scroll.toInt(), 0, (if (isRtl) velocityX else -velocityX).toInt(), 0, 0, furthest.toInt(), 0, 0)
            postInvalidateOnAnimation()
            return true
        }

        override fun onSingleTapUp(event: MotionEvent): Boolean {
            val index = ((scroll + at(event.x)) / column).toInt()
            if (index <= last) choose(index, true)
            return true
        }
    })

    override fun computeScroll() {
        if (scroller.computeScrollOffset()) {
            back = (furthest - scroller.currX).coerceIn(0f, furthest)
            postInvalidateOnAnimation()
        }
    }

    @SuppressLint("ClickableViewAccessibility") // A click chooses the newest in sight.
    override fun onTouchEvent(event: MotionEvent): Boolean = gestures.onTouchEvent(event)

    override fun performClick(): Boolean {
        super.performClick()
        if (last >= 0) choose(last, false)
        return true
    }

    private fun choose(index: Int, isTouched: Boolean) {
        chosen = index + (timeline?.forgotten ?: return)
        onChoose(index, isTouched)
        invalidate()
    }

    /** The arrow keys choose the prediction before or after. */
    override fun onKeyDown(keyCode: Int, event: KeyEvent): Boolean {
        val timeline = timeline
        val towardsNewest = if (isRtl) KeyEvent.KEYCODE_DPAD_LEFT else KeyEvent.KEYCODE_DPAD_RIGHT
        if (timeline == null || keyCode != KeyEvent.KEYCODE_DPAD_LEFT && keyCode != KeyEvent.KEYCODE_DPAD_RIGHT) return super.onKeyDown(keyCode, event)
        val before = (chosen - timeline.forgotten).toInt()
        val index = if (before < 0) last else before + if (keyCode == towardsNewest) 1 else -1
        if (index !in 0 until timeline.size) return false
        choose(index, false)
        if (index < first + 1) scrollBy((index - first - 1) * column) else if (index >= last) scrollBy((index - last + 1) * column)
        return true
    }

    override fun canScrollHorizontally(direction: Int): Boolean = if (direction < 0 != isRtl) scroll > 0 else back > 0

    /** Such as "Last 30 seconds: Fight 80 percent of the time". */
    override fun getContentDescription(): CharSequence {
        val timeline = timeline?.takeIf { it.size > 0 } ?: return ""
        if (back > 0) {
            val end = timeline.startUs(last) + timeline.subclipUs
            return context.getString(R.string.timeline_range, clock(timeline.startUs(first), zero), clock(end, zero), shares(timeline, first, last + 1))
        }
        val count = timeline.lasting(SUMMARY_S)
        val seconds = maxOf((count * timeline.subclipUs / SECOND_US.toDouble()).roundToInt(), 1)
        return resources.getQuantityString(R.plurals.timeline_seconds, seconds, seconds, shares(timeline, timeline.size - count, timeline.size))
    }

    private fun shares(timeline: Timeline, from: Int, to: Int): String =
        timeline.shares(from, to).take(NAMED).joinToString { context.getString(R.string.timeline_share, it.name, (it.part * 100).roundToInt()) }

    override fun onInitializeAccessibilityNodeInfo(info: AccessibilityNodeInfo) {
        super.onInitializeAccessibilityNodeInfo(info)
        info.className = HorizontalScrollView::class.java.name
        info.isScrollable = furthest > 0
        if (scroll > 0) info.addAction(AccessibilityAction.ACTION_SCROLL_BACKWARD)
        if (back > 0) info.addAction(AccessibilityAction.ACTION_SCROLL_FORWARD)
    }

    override fun performAccessibilityAction(action: Int, arguments: Bundle?): Boolean {
        val pages = when (action) {
            AccessibilityNodeInfo.ACTION_SCROLL_BACKWARD -> -1
            AccessibilityNodeInfo.ACTION_SCROLL_FORWARD -> 1
            else -> return super.performAccessibilityAction(action, arguments)
        }
        val before = back
        scrollBy(pages * width * 0.5f)
        return back != before
    }
}
