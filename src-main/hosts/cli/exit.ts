/** What the exit code says, and what ends the program early. */

export const exitCodes = { done: 0, someFailed: 1, badInput: 2, damaged: 3, interrupted: 130 } as const;
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

/** npm passes on an interrupt that the terminal has delivered already: two within this time are one. */
const echoMilliseconds = 250;

export interface Interruption {
  /** A first Ctrl+C: end soon. */
  readonly onStop: () => void;
  /** A second one, or being told to terminate: end now. */
  readonly onCancel: () => void;
}

/** Listens for signals until the returned function is called. */
export function onInterrupt({ onStop, onCancel }: Interruption): () => void {
  let lastInterrupt: number | undefined;
  const interrupt = (): void => {
    const now = performance.now();
    const isEcho = lastInterrupt !== undefined && now - lastInterrupt < echoMilliseconds;
    if (!isEcho) (lastInterrupt === undefined ? onStop : onCancel)();
    lastInterrupt = now;
  };
  const signals = { SIGINT: interrupt, SIGTERM: onCancel, SIGHUP: onCancel };
  for (const [signal, listener] of Object.entries(signals)) process.on(signal, listener);
  return () => {
    if (lastInterrupt !== undefined) swallowEcho();
    for (const [signal, listener] of Object.entries(signals)) process.off(signal, listener);
  };
}

/** An echo may come when all is measured: it must not end the program before its output is out. */
function swallowEcho(): void {
  const swallow = (): void => undefined;
  process.on('SIGINT', swallow);
  setTimeout(() => process.off('SIGINT', swallow), echoMilliseconds).unref();
}
