package clipstep.demo

import android.content.ComponentName
import android.content.Context
import android.content.Intent
import android.content.ServiceConnection
import android.os.Bundle
import android.os.Handler
import android.os.IBinder
import android.os.Message
import android.os.Messenger
import android.os.RemoteException
import kotlinx.serialization.json.Json

private const val PROCESS_END_MS = 500L

/** Runs tasks one after the other, each in a process of its own. Used on the main thread. */
interface Measurer {
    /** Runs a task, and calls exactly one of the two functions on the main thread, unless it is cancelled before. */
    fun measure(task: Task, done: (Measurement) -> Unit, failed: (String) -> Unit)

    /** Runs a task's steps for so many seconds, and calls [told] with each [Slice], then exactly one of the other two, unless it is cancelled before. */
    fun sustain(task: Task, seconds: Int, told: (Slice) -> Unit, done: () -> Unit, failed: (String) -> Unit)

    fun cancel()
}

/** A measurer that uses [BenchService]. */
internal class ProcessMeasurer(private val context: Context, private val main: Handler) : Measurer {
    private var turn: Turn? = null

    override fun measure(task: Task, done: (Measurement) -> Unit, failed: (String) -> Unit) =
        begin(Turn(task, 0, {}, { done(Json.decodeFromString(it)) }, failed))

    override fun sustain(task: Task, seconds: Int, told: (Slice) -> Unit, done: () -> Unit, failed: (String) -> Unit) =
        begin(Turn(task, seconds, told, { done() }, failed))

    private fun begin(next: Turn) {
        turn = next
        val isFound = context.bindService(Intent(context, BenchService::class.java), next, Context.BIND_AUTO_CREATE)
        if (!isFound) main.post { next.fail(R.string.bench_not_started) }
    }

    override fun cancel() {
        turn?.end()
    }

    private inner class Turn(
        private val task: Task, private val seconds: Int, private val told: (Slice) -> Unit, private val done: (String) -> Unit, private val failed: (String) -> Unit,
    ) : ServiceConnection {
        private val replies = Messenger(Handler(main.looper) { reply(it.data) })
        private var deaths = 0
        private var hasTold = false
        private var isBound = true

        override fun onServiceConnected(name: ComponentName, service: IBinder) {
            val message = Message.obtain().apply {
                data = Bundle().apply { putString(KEY_TASK, Json.encodeToString(task)); putInt(KEY_SECONDS, seconds) }
                replyTo = replies
            }
            try {
                Messenger(service).send(message)
            } catch (_: RemoteException) {
                return // This is the process of the last task, which is ending: onServiceDisconnected follows, and then a new one.
            }
        }

        override fun onServiceDisconnected(name: ComponentName) {
            if (++deaths > 1 || hasTold) fail(R.string.bench_died)
        }

        /** Android starts no other process, as that of the service ended too often. */
        override fun onBindingDied(name: ComponentName) = fail(R.string.bench_died)

        private fun reply(data: Bundle): Boolean {
            if (!isBound) return true
            data.getString(KEY_SLICE)?.let {
                hasTold = true
                told(Json.decodeFromString(it))
                return true
            }
            unbind()
            main.postDelayed({ answer(data) }, PROCESS_END_MS)
            return true
        }

        private fun answer(data: Bundle) {
            if (turn !== this) return // It was cancelled in the meantime.
            turn = null
            val result = data.getString(KEY_RESULT)
            if (result == null) failed(data.getString(KEY_ERROR).orEmpty()) else done(result)
        }

        fun fail(sentence: Int) {
            if (!isBound) return
            end()
            failed(context.getString(sentence))
        }

        private fun unbind() {
            if (isBound) context.unbindService(this)
            isBound = false
        }

        fun end() {
            unbind()
            turn = null
        }
    }
}
