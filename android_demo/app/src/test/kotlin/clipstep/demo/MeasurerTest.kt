package clipstep.demo

import android.content.ComponentName
import android.content.Context
import android.content.ContextWrapper
import android.content.Intent
import android.content.ServiceConnection
import android.os.Binder
import android.os.Bundle
import android.os.DeadObjectException
import android.os.Handler
import android.os.IBinder
import android.os.Looper
import android.os.Message
import android.os.Messenger
import android.os.Parcel
import java.time.Duration
import kotlinx.serialization.json.Json
import org.junit.Assert.assertEquals
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config

private const val DIED = "the process that measured was ended by the system, perhaps because memory ran out"
private const val NOT_STARTED = "the system did not start the process that measures"

/** What is told of a measurement in another process, whose service is scripted. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], application = TestApplication::class)
class MeasurerTest {
    private val phone = Phone(RuntimeEnvironment.getApplication())
    private val measurer = ProcessMeasurer(phone, Handler(Looper.getMainLooper()))
    private val task = Task("a.clipstep", "", "onnxruntime", 1, 1, 2)
    private val measured = KEY_RESULT to Json.encodeToString(Measurement("float32", 0.2, 31.0, 1e-6, listOf(10.0), 50_000_000, 90_000_000, 7))
    private val second = KEY_SLICE to Json.encodeToString(slice(3, 10.0))
    private val said = mutableListOf<String>()

    private fun measure() = measurer.measure(task, { said += "done ${it.processId}" }, { said += it }).also { idle() }

    private fun sustain() = measurer.sustain(task, 60, { said += "second ${it.startS}" }, { said += "done" }, { said += it }).also { idle() }

    private fun saysInTheEnd(vararg words: String) {
        idle(5000)
        assertEquals(words.toList(), said)
        assertEquals("it is unbound", emptyList<ServiceConnection>(), phone.bound)
    }

    @Test
    fun `an answer is told once, after its process has had time to end`() {
        measure()
        phone.answer(measured, 300)
        assertEquals(emptyList<String>(), said)
        phone.connections.single().onServiceDisconnected(phone.service) // The process ends after its answer.
        saysInTheEnd("done 7")
        assertEquals(1, phone.asked.size)
    }

    @Test
    fun `a process that dies is started once more, because the one before may have been meant, and then it failed`() {
        measure()
        phone.restart()
        assertEquals(listOf<Any>(2, emptyList<String>()), listOf(phone.asked.size, said))
        phone.restart()
        saysInTheEnd(DIED)
        phone.restart()
        saysInTheEnd(DIED)
    }

    @Test
    fun `the process of the task before, which is ending, is no death of this one`() {
        phone.binder = object : Binder() {
            override fun onTransact(code: Int, data: Parcel, reply: Parcel?, flags: Int) = throw DeadObjectException()
        }
        measure()
        phone.binder = phone.alive
        phone.restart() // Android tells of that end, too.
        phone.answer(measured)
        saysInTheEnd("done 7")
    }

    @Test
    fun `a sustained run whose process dies has failed at once`() {
        sustain()
        phone.answer(second)
        phone.restart()
        phone.answer(second)
        saysInTheEnd("second 3.0", DIED)
    }

    @Test
    fun `a process that the system does not start again has failed`() {
        measure()
        phone.connections.single().run { onServiceDisconnected(phone.service); onBindingDied(phone.service) }
        saysInTheEnd(DIED)
    }

    @Test
    fun `a service that cannot be bound is said to be so, after the call`() {
        phone.binds = false
        measurer.measure(task, { said += "done" }, { said += it })
        assertEquals(emptyList<String>(), said)
        saysInTheEnd(NOT_STARTED)
        sustain()
        saysInTheEnd(NOT_STARTED, NOT_STARTED)
    }

    @Test
    fun `nothing is told after cancelling, whenever that is`() {
        phone.binds = false
        measurer.measure(task, { said += "done" }, { said += it })
        measurer.cancel()
        saysInTheEnd()
        phone.binds = true
        for (late in listOf<() -> Unit>({ phone.answer(measured) }, { phone.answer(KEY_ERROR to "x") }, { phone.answer(second) }, { phone.restart(); phone.restart() })) {
            measure()
            measurer.cancel()
            late()
            saysInTheEnd()
        }
        measure()
        phone.answer(measured, 300) // The answer is here, and would be told after 500 ms.
        measurer.cancel()
        measurer.cancel()
        saysInTheEnd()
    }

    private fun idle(ms: Long = 0) = shadowOf(Looper.getMainLooper()).idleFor(Duration.ofMillis(ms))

    /** A phone whose services are connected as a test says. Unbinding what is not bound fails, as on Android. */
    private inner class Phone(base: Context) : ContextWrapper(base) {
        val service = ComponentName(base, BenchService::class.java)
        val asked = mutableListOf<Message>()
        val alive: IBinder = Messenger(Handler(Looper.getMainLooper()) { asked += Message.obtain(it); true }).binder
        val connections = mutableListOf<ServiceConnection>()
        val bound = mutableListOf<ServiceConnection>()
        var binder = alive
        var binds = true

        /** Also a service that is not bound keeps its connection until it is unbound. */
        override fun bindService(intent: Intent, connection: ServiceConnection, flags: Int): Boolean {
            assertEquals(service to Context.BIND_AUTO_CREATE, intent.component to flags)
            connections += connection
            bound += connection
            if (binds) connection.onServiceConnected(service, binder)
            return binds
        }

        override fun unbindService(connection: ServiceConnection) = check(bound.remove(connection)) { "it is not bound" }

        /** The newest connection's process dies, and another one is started, unless that was unbound. */
        fun restart() {
            val connection = connections.last()
            connection.onServiceDisconnected(service)
            if (connection in bound) connection.onServiceConnected(service, binder)
            idle()
        }

        fun answer(what: Pair<String, String>, ms: Long = 0) {
            asked.last().replyTo.send(Message.obtain().apply { data = Bundle().apply { putString(what.first, what.second) } })
            idle(ms)
        }
    }
}
