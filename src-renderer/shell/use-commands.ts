import { useComputedColorScheme, useMantineColorScheme } from '@mantine/core';
import { useMemo, useRef } from 'react';
import { useApp } from '../panels/use-app.ts';
import { type Command, commandsOf } from './commands.ts';

/** The list is made once; what it does is always done as things stand. */
export function useCommands(): readonly Command[] {
  const app = useApp();
  const { setColorScheme } = useMantineColorScheme();
  const scheme = useComputedColorScheme('light');
  const switchTheme = useRef(() => {});
  switchTheme.current = () => setColorScheme(scheme === 'dark' ? 'light' : 'dark');
  return useMemo(() => commandsOf(app, { switchTheme: () => switchTheme.current() }), [app]);
}
