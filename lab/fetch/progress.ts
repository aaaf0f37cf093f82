/**
 * What a person sees while something is fetched: a spinner on a terminal, plain lines elsewhere; always on stderr.
 * Silent as long as nothing has to be fetched.
 */
import yoctoSpinner, { type Spinner } from 'yocto-spinner'

export interface Progress {
  /** What is going on now. */
  step(text: string): void
  done(text: string): void
  fail(text: string): void
}

export function stderrProgress(stream: NodeJS.WriteStream = process.stderr): Progress {
  return stream.isTTY ? spinnerProgress(stream) : plainProgress(stream)
}

function spinnerProgress(stream: NodeJS.WriteStream): Progress {
  let spinner: Spinner | undefined
  return {
    step(text) {
      if (spinner) spinner.text = text
      else spinner = yoctoSpinner({ text, stream }).start()
    },
    done(text) {
      spinner?.success(text)
      spinner = undefined
    },
    fail(text) {
      spinner?.error(text)
      spinner = undefined
    },
  }
}

/** Counters ("12/90") would fill a log: a line is written only when the words change. */
function plainProgress(stream: NodeJS.WriteStream): Progress {
  let last = ''
  const line = (mark: string, text: string) => {
    const words = `${mark} ${text.replace(/ \d+\/(\d+)$/, ' $1 packages')}\n`
    if (words !== last) stream.write(words)
    last = words
  }
  return { step: (text) => line('..', text), done: (text) => line('ok', text), fail: (text) => line('!!', text) }
}
