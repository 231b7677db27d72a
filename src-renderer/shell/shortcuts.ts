/** Keys that work anywhere in the window: those of the commands. What lies over the window keeps its keys to itself. */
import { useHotkeys } from '@mantine/hooks';
import { useApp } from '../panels/use-app.ts';
import type { Command } from './commands.ts';

/** These open, and close, what lies over the window. */
const overlays: readonly string[] = ['commands', 'keys'];

export function useShortcuts(commands: readonly Command[]): void {
  const app = useApp();
  const press = ({ id, notIn = [], isPossible, act }: Command, event: KeyboardEvent): void => {
    const { overlay } = app.view.getState();
    const isTaken = event.target instanceof HTMLElement && notIn.includes(event.target.tagName);
    if (isTaken || (overlay !== undefined && !overlays.includes(id))) return;
    event.preventDefault();
    if (isPossible?.(app.run.getState().run) ?? true) act();
  };
  useHotkeys(
    commands.flatMap((command) =>
      (command.keys ?? []).map((keys) => [
        keys,
        (event: KeyboardEvent) => press(command, event),
        { preventDefault: false },
      ]),
    ),
    [],
  );
}
