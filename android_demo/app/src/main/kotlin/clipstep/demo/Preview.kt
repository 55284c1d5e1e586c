package clipstep.demo

import android.content.Context
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import android.graphics.Path
import android.graphics.RectF
import android.os.Handler
import android.os.Looper
import android.util.AttributeSet
import android.util.Size
import android.view.Surface
import android.view.SurfaceHolder
import android.view.SurfaceView
import android.view.View
import android.widget.FrameLayout
import clipstep.runtime.Box

/**
 * Shows a camera's pictures whole, in their own shape, with [CropView] over them. Android itself turns a [SurfaceView]'s pictures with the display.
 *
 * Used on the main thread, except for [prepare].
 */
class CameraView(context: Context, attributes: AttributeSet) : FrameLayout(context, attributes), PreviewTarget {
    private val main = Handler(Looper.getMainLooper())
    private val pictures = SurfaceView(context)
    private var wanted: Wanted? = null
    private var shape = Size(4, 3)

    /** Called before a camera shows its pictures here. */
    var onShow: () -> Unit = {}

    private class Wanted(val size: Size, val ready: (Surface) -> Unit)

    init {
        addView(pictures, LayoutParams.MATCH_PARENT, LayoutParams.MATCH_PARENT)
        addView(CropView(context), LayoutParams.MATCH_PARENT, LayoutParams.MATCH_PARENT)
        pictures.holder.addCallback(object : SurfaceHolder.Callback {
            override fun surfaceCreated(holder: SurfaceHolder) = Unit

            override fun surfaceChanged(holder: SurfaceHolder, format: Int, width: Int, height: Int) = give(Size(width, height), holder.surface)

            override fun surfaceDestroyed(holder: SurfaceHolder) = Unit
        })
    }

    override fun prepare(size: Size, rotation: Int, ready: (Surface) -> Unit) {
        main.post {
            wanted = Wanted(size, ready)
            shape = if (rotation % 180 == 0) size else Size(size.height, size.width)
            onShow()
            requestLayout()
            pictures.holder.setFixedSize(size.width, size.height)
            if (pictures.holder.surface?.isValid == true) pictures.holder.surfaceFrame.run { give(Size(width(), height()), pictures.holder.surface) }
        }
    }

    private fun give(size: Size, surface: Surface) {
        val waiting = wanted?.takeIf { it.size == size } ?: return
        wanted = null
        waiting.ready(surface)
    }

    /** Takes the largest rectangle of the pictures' shape that there is room for. */
    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) {
        val (width, height) = largest(MeasureSpec.getSize(widthMeasureSpec), MeasureSpec.getSize(heightMeasureSpec), shape)
        super.onMeasure(MeasureSpec.makeMeasureSpec(width, MeasureSpec.EXACTLY), MeasureSpec.makeMeasureSpec(height, MeasureSpec.EXACTLY))
    }
}

/** Returns the width and the height of the largest rectangle of a shape in a room of [width] by [height]. */
internal fun largest(width: Int, height: Int, shape: Size): Pair<Int, Int> =
    if (width * shape.height <= height * shape.width) width to width * shape.height / shape.width else height * shape.width / shape.height to height

private const val SHADE = 0x99000000.toInt()
private const val LINE_DP = 2

/** Draws over a picture which square of it the network sees: what is outside is darker. */
internal class CropView(context: Context) : View(context) {
    private val outside = Path().apply { fillType = Path.FillType.EVEN_ODD }
    private val square = RectF()
    private val shade = Paint().apply { color = SHADE }
    private val line = Paint().apply {
        color = Color.WHITE
        style = Paint.Style.STROKE
        strokeWidth = LINE_DP * resources.displayMetrics.density
    }

    override fun onSizeChanged(width: Int, height: Int, oldWidth: Int, oldHeight: Int) {
        val box = Box.center(height, width)
        square.set(box.left.toFloat(), box.top.toFloat(), (box.left + box.side).toFloat(), (box.top + box.side).toFloat())
        outside.reset()
        outside.addRect(0f, 0f, width.toFloat(), height.toFloat(), Path.Direction.CW)
        outside.addRect(square, Path.Direction.CW)
        square.inset(line.strokeWidth / 2, line.strokeWidth / 2)
    }

    override fun onDraw(canvas: Canvas) {
        canvas.drawPath(outside, shade)
        canvas.drawRect(square, line)
    }
}
