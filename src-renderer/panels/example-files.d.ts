declare module '*.fmqa?raw' {
  const text: string;
  export default text;
}
