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
        context.bindService(Intent(context, BenchService::class.java), next, Context.BIND_AUTO_CREATE)
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

        override fun onServiceConnected(name: ComponentName, service: IBinder) {
            val message = Message.obtain().apply {
                data = Bundle().apply { putString(KEY_TASK, Json.encodeToString(task)); putInt(KEY_SECONDS, seconds) }
                replyTo = replies
            }
            try {
                Messenger(service).send(message)
            } catch (_: RemoteException) {
                onServiceDisconnected(name) // This is the process of the last task, which is ending; a new one follows.
            }
        }

        override fun onServiceDisconnected(name: ComponentName) {
            if ((++deaths > 1 || hasTold) && turn === this) {
                end()
                failed(context.getString(R.string.bench_died))
            }
        }

        private fun reply(data: Bundle): Boolean {
            if (turn !== this) return true
            data.getString(KEY_SLICE)?.let {
                hasTold = true
                told(Json.decodeFromString(it))
                return true
            }
            end()
            val result = data.getString(KEY_RESULT)
            val error = data.getString(KEY_ERROR).orEmpty()
            main.postDelayed({ if (result == null) failed(error) else done(result) }, PROCESS_END_MS)
            return true
        }

        fun end() {
            if (turn === this) context.unbindService(this)
            turn = null
        }
    }
}
